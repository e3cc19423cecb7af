#!/bin/bash
# A session of the AWS command line: `aws s3` and `aws s3api`. Needs `aws` on the PATH.
. "$(dirname "$0")/lib.sh"
export AWS_ACCESS_KEY_ID="$WEFT_ACCESS_KEY" AWS_SECRET_ACCESS_KEY="$WEFT_SECRET_KEY"
export AWS_DEFAULT_REGION=us-east-1 AWS_ENDPOINT_URL="$WEFT_ENDPOINT" AWS_PAGER=''
export AWS_CONFIG_FILE="$WORK/config" AWS_SHARED_CREDENTIALS_FILE="$WORK/credentials"
s3() { aws s3 "$@" --no-progress; }
api() { aws s3api "$@" --bucket "$BUCKET"; }
prepare

check 'make bucket' aws s3 mb "s3://$BUCKET"
check 'make it again is refused' refuses aws s3 mb "s3://$BUCKET"
check 'put' s3 cp "$WORK/small" "s3://$BUCKET/small"
check 'get' s3 cp "s3://$BUCKET/small" "$WORK/back/small"
check 'get has the bytes' same "$WORK/small" "$WORK/back/small"
check 'ls' says small aws s3 ls "s3://$BUCKET/"
check 'copy' s3 cp "s3://$BUCKET/small" "s3://$BUCKET/dir/copy"
check 'move' s3 mv "s3://$BUCKET/dir/copy" "s3://$BUCKET/dir/moved"
check '100 MiB multipart put' s3 cp "$WORK/large" "s3://$BUCKET/large"
check '100 MiB get' s3 cp "s3://$BUCKET/large" "$WORK/back/large"
check '100 MiB has the bytes' same "$WORK/large" "$WORK/back/large"
check '100 MiB copy by parts' s3 cp "s3://$BUCKET/large" "s3://$BUCKET/large2"
check 'presign' says hello curl -sSf "$(aws s3 presign "s3://$BUCKET/small")"
check 'sync up' s3 sync "$WORK/tree" "s3://$BUCKET/tree"
check 'sync down' s3 sync "s3://$BUCKET/tree" "$WORK/back/tree"
check 'sync has the bytes' diff -r "$WORK/tree" "$WORK/back/tree"
check 'sync again has nothing to do' refuses says upload s3 sync "$WORK/tree" "s3://$BUCKET/tree"
rm "$WORK/tree/one"
check 'sync with delete' says 'delete: s3' s3 sync --delete "$WORK/tree" "s3://$BUCKET/tree"
check 'odd keys: sync up' s3 sync "$WORK/odd" "s3://$BUCKET/odd"
check 'odd keys: sync down' s3 sync "s3://$BUCKET/odd" "$WORK/back/odd"
check 'odd keys: have the bytes' diff -r "$WORK/odd" "$WORK/back/odd"
check 'odd keys: copy on the server' s3 cp --recursive "s3://$BUCKET/odd" "s3://$BUCKET/odder"
check 'odd keys: ls' says 'plus+plus' aws s3 ls --recursive "s3://$BUCKET/odder/"
check 'api: put-object' api put-object --key api --body "$WORK/small" --metadata a=1,b=2 --content-type text/x \
  --checksum-algorithm SHA256
check 'api: head-object' says '"a": "1"' api head-object --key api --checksum-mode ENABLED
check 'api: get-object' api get-object --key api --range bytes=1-3 "$WORK/back/range"
check 'api: the range has the bytes' says ell cat "$WORK/back/range"
check 'api: copy-object' api copy-object --key api2 --copy-source "$BUCKET/api" --metadata-directive REPLACE --metadata c=3
check 'api: list-objects-v2' says '"api2"' api list-objects-v2 --prefix api --max-items 10
check 'api: list-object-versions' says '"null"' api list-object-versions --prefix api
check 'api: head-object of nothing is refused' refuses api head-object --key nothing
upload="$(api create-multipart-upload --key parts --query UploadId --output text)"
check 'api: upload-part' api upload-part --key parts --upload-id "$upload" --part-number 1 --body "$WORK/small"
check 'api: list-parts' says '"PartNumber": 1' api list-parts --key parts --upload-id "$upload"
check 'api: abort-multipart-upload' api abort-multipart-upload --key parts --upload-id "$upload"
check 'api: delete-objects' says '"api2"' api delete-objects --delete '{"Objects": [{"Key": "api"}, {"Key": "api2"}]}'
check 'delete' aws s3 rm "s3://$BUCKET/small"
check 'a bucket with objects is not removed' refuses aws s3 rb "s3://$BUCKET"
check 'delete all' aws s3 rm --recursive "s3://$BUCKET"
check 'remove bucket' aws s3 rb "s3://$BUCKET"
finish
