# What the client sessions share: where to go, how to say what passed. Sourced, not run.
#
# The endpoint and the keys come from the environment; the defaults are those of scripts/run.
# Each session makes a bucket of its own, and removes it. One line a step: PASS or FAIL and its name;
# a step that failed is followed by what the client said. The exit code says whether all passed.

set -u
export WEFT_ENDPOINT="${WEFT_ENDPOINT:-http://127.0.0.1:9000}"
export WEFT_ACCESS_KEY="${WEFT_ACCESS_KEY:-rustfsadmin}"
export WEFT_SECRET_KEY="${WEFT_SECRET_KEY:-rustfssecret}"
HOST="${WEFT_ENDPOINT#*://}"
BUCKET="clients-$(basename "$0" .sh)-$$-$(date +%s)"
WORK="$(mktemp -d)"
FAILED=0
trap 'rm -rf "$WORK"' EXIT

# check NAME COMMAND...: runs the command; its success is the step's.
check() {
  local name="$1"
  shift
  if "$@" >"$WORK/said" 2>&1; then
    echo "PASS $name"
  else
    FAILED=$((FAILED + 1))
    echo "FAIL $name"
    sed 's/^/     | /' "$WORK/said" | tail -n 20
  fi
}

# refuses COMMAND...: success when the command fails.
refuses() { ! "$@"; }

# same FILE FILE: equal bytes.
same() { cmp "$1" "$2"; }

# says TEXT COMMAND...: the command's output contains the text.
says() {
  local text="$1"
  shift
  "$@" >"$WORK/output" 2>&1 || { cat "$WORK/output"; return 1; }
  grep -qF -- "$text" "$WORK/output" || { echo "no '$text' in:"; cat "$WORK/output"; return 1; }
}

# prepare: the files that every session uploads.
prepare() {
  mkdir -p "$WORK/tree/a b/ü" "$WORK/tree/deep/er" "$WORK/back" "$WORK/odd"
  printf 'hello\n' >"$WORK/small"
  : >"$WORK/empty"
  head -c 104857600 /dev/urandom >"$WORK/large"
  printf '1' >"$WORK/tree/one"
  printf '2' >"$WORK/tree/a b/ü/two+three"
  head -c 300000 /dev/urandom >"$WORK/tree/deep/er/🚀.bin"
  : >"$WORK/tree/deep/empty"
  local key
  for key in "${ODD_KEYS[@]}"; do printf '%s' "$key" >"$WORK/odd/$key"; done
}

# Names that clients and servers like to disagree about.
ODD_KEYS=('a b' 'plus+plus' '100%' 'ümläut 日本語' 'emoji😀' 'a=b&c' 'semi;colon' "quote's" '#hash' '(x)!~*' 'q?x=1' '@:,$')

finish() {
  if [ "$FAILED" -eq 0 ]; then echo "PASS all"; else echo "FAIL $FAILED steps"; fi
  exit "$((FAILED > 0))"
}
