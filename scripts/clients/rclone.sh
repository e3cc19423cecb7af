#!/bin/bash
# A session of rclone. Needs `rclone` on the PATH.
. "$(dirname "$0")/lib.sh"
# rclone's transport cannot take a bundle of certificates from the environment.
unset AWS_CA_BUNDLE
export RCLONE_CONFIG="$WORK/rclone.conf" RCLONE_CONFIG_WEFT_TYPE=s3 RCLONE_CONFIG_WEFT_PROVIDER=Other
export RCLONE_CONFIG_WEFT_ENDPOINT="$WEFT_ENDPOINT" RCLONE_CONFIG_WEFT_ACCESS_KEY_ID="$WEFT_ACCESS_KEY"
export RCLONE_CONFIG_WEFT_SECRET_ACCESS_KEY="$WEFT_SECRET_KEY" RCLONE_CONFIG_WEFT_REGION=us-east-1
: >"$RCLONE_CONFIG"
prepare

check 'make bucket' rclone mkdir "weft:$BUCKET"
check 'list buckets' says "$BUCKET" rclone lsd weft:
check 'put' rclone copyto "$WORK/small" "weft:$BUCKET/small"
check 'put empty' rclone copyto "$WORK/empty" "weft:$BUCKET/empty"
check 'get' rclone copyto "weft:$BUCKET/small" "$WORK/back/small"
check 'get has the bytes' same "$WORK/small" "$WORK/back/small"
check 'ls' says small rclone ls "weft:$BUCKET"
check 'cat a range' says ell rclone cat --offset 1 --count 3 "weft:$BUCKET/small"
check 'copy on the server' rclone copyto "weft:$BUCKET/small" "weft:$BUCKET/dir/copy"
check 'move on the server' rclone moveto "weft:$BUCKET/dir/copy" "weft:$BUCKET/dir/moved"
check '100 MiB multipart put' rclone copyto --s3-upload-cutoff 5M --s3-chunk-size 5M "$WORK/large" "weft:$BUCKET/large"
check '100 MiB in one put' rclone copyto --s3-upload-cutoff 200M "$WORK/large" "weft:$BUCKET/large1"
check '100 MiB get by several streams' rclone copyto --multi-thread-cutoff 10M --multi-thread-streams 4 \
  "weft:$BUCKET/large" "$WORK/back/large"
check '100 MiB has the bytes' same "$WORK/large" "$WORK/back/large"
check '100 MiB copy by parts' rclone copyto --s3-copy-cutoff 20M "weft:$BUCKET/large" "weft:$BUCKET/large2"
check 'a stream of unknown length' bash -c "rclone rcat --s3-chunk-size 5M --streaming-upload-cutoff 1M weft:$BUCKET/streamed <'$WORK/large'"
check 'sync up' rclone sync "$WORK/tree" "weft:$BUCKET/tree"
check 'check' rclone check "$WORK/tree" "weft:$BUCKET/tree"
check 'check by download' rclone check --download "$WORK/tree" "weft:$BUCKET/tree"
check 'sync down' rclone sync "weft:$BUCKET/tree" "$WORK/back/tree"
check 'sync has the bytes' diff -r "$WORK/tree" "$WORK/back/tree"
check 'times are kept' test "$WORK/tree/one" -ot "$WORK/back" -a ! "$WORK/tree/one" -nt "$WORK/back/tree/one"
check 'sync again has nothing to do' says 'nothing to transfer' rclone sync -v "$WORK/tree" "weft:$BUCKET/tree"
rm "$WORK/tree/one"
check 'sync deletes' rclone sync "$WORK/tree" "weft:$BUCKET/tree"
check 'check again' rclone check "$WORK/tree" "weft:$BUCKET/tree"
for key in "${ODD_KEYS[@]}"; do
  check "odd key $key: put" rclone copyto "$WORK/small" "weft:$BUCKET/odd/$key"
  check "odd key $key: get" rclone copyto "weft:$BUCKET/odd/$key" "$WORK/back/odd/got"
  check "odd key $key: ls" says "$key" rclone lsf -R "weft:$BUCKET/odd"
done
check 'size' says 'Total objects' rclone size "weft:$BUCKET"
check 'presign' says hello curl -sSf "$(rclone link "weft:$BUCKET/small")"
check 'sigv2: ls' says small rclone ls --s3-v2-auth "weft:$BUCKET"
check 'delete' rclone deletefile "weft:$BUCKET/small"
check 'what was deleted is gone' refuses says small rclone lsf "weft:$BUCKET"
check 'a bucket with objects is not removed' refuses rclone rmdir "weft:$BUCKET"
check 'clean up uploads' rclone cleanup "weft:$BUCKET"
check 'purge' rclone purge "weft:$BUCKET"
check 'it is gone' refuses says "$BUCKET" rclone lsd weft:
finish
