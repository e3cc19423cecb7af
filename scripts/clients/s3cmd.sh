#!/bin/bash
# A session of s3cmd. Needs `s3cmd` on the PATH.
. "$(dirname "$0")/lib.sh"
cat >"$WORK/s3cfg" <<CFG
[default]
access_key = $WEFT_ACCESS_KEY
secret_key = $WEFT_SECRET_KEY
host_base = $HOST
host_bucket = $HOST
use_https = $([ "${WEFT_ENDPOINT%%:*}" = https ] && echo True || echo False)
check_ssl_certificate = True
CFG
s3cmd() { command s3cmd --config "$WORK/s3cfg" --no-progress "$@"; }
prepare

check 'make bucket' s3cmd mb "s3://$BUCKET"
check 'list buckets' says "$BUCKET" s3cmd ls
check 'put' s3cmd put "$WORK/small" "s3://$BUCKET/small"
check 'put empty' s3cmd put "$WORK/empty" "s3://$BUCKET/empty"
check 'get' s3cmd get "s3://$BUCKET/small" "$WORK/back/small"
check 'get has the bytes' same "$WORK/small" "$WORK/back/small"
check 'info' says 'MD5 sum:' s3cmd info "s3://$BUCKET/small"
check 'ls' says "s3://$BUCKET/small" s3cmd ls "s3://$BUCKET"
check 'copy' s3cmd cp "s3://$BUCKET/small" "s3://$BUCKET/dir/copy"
check 'move' s3cmd mv "s3://$BUCKET/dir/copy" "s3://$BUCKET/dir/moved"
check 'modify metadata' s3cmd modify --add-header=x-amz-meta-a:1 "s3://$BUCKET/small"
check 'du' says "$BUCKET" s3cmd du "s3://$BUCKET"
check '100 MiB multipart put' s3cmd put --multipart-chunk-size-mb=15 "$WORK/large" "s3://$BUCKET/large"
check '100 MiB get' s3cmd get "s3://$BUCKET/large" "$WORK/back/large"
check '100 MiB has the bytes' same "$WORK/large" "$WORK/back/large"
check 'no upload is left' refuses says "$BUCKET/large" s3cmd multipart "s3://$BUCKET"
check 'sync up' s3cmd sync "$WORK/tree/" "s3://$BUCKET/tree/"
check 'sync down' s3cmd sync "s3://$BUCKET/tree/" "$WORK/back/tree/"
check 'sync has the bytes' diff -r "$WORK/tree" "$WORK/back/tree"
check 'sync again has nothing to do' refuses says upload: s3cmd sync "$WORK/tree/" "s3://$BUCKET/tree/"
rm "$WORK/tree/one"
check 'sync with delete' says delete: s3cmd sync --delete-removed "$WORK/tree/" "s3://$BUCKET/tree/"
for key in "${ODD_KEYS[@]}"; do
  check "odd key $key: put" s3cmd put "$WORK/small" "s3://$BUCKET/odd/$key"
  check "odd key $key: get" s3cmd get --force "s3://$BUCKET/odd/$key" "$WORK/back/odd"
  check "odd key $key: ls" says "$key" s3cmd ls --recursive "s3://$BUCKET/odd/"
done
check 'presign' says hello curl -sSf "$(s3cmd signurl "s3://$BUCKET/small" +600)"
check 'sigv2: put' s3cmd --signature-v2 put "$WORK/small" "s3://$BUCKET/v2"
check 'sigv2: ls' says "s3://$BUCKET/v2" s3cmd --signature-v2 ls "s3://$BUCKET"
check 'delete' s3cmd del "s3://$BUCKET/small"
check 'get of nothing is refused' refuses s3cmd get "s3://$BUCKET/small" "$WORK/back/none"
check 'a bucket with objects is not removed' refuses s3cmd rb "s3://$BUCKET"
check 'delete all' s3cmd del --recursive --force "s3://$BUCKET"
check 'remove bucket' s3cmd rb "s3://$BUCKET"
finish
