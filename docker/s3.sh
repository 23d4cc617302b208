#!/bin/sh
# Makes the credentials of the S3 store, a random key: docker/s3/credentials, which botocore reads, and identities.json, which
# SeaweedFS reads; or both in the folder named. For another S3, write what it gave you into the first one.
# The folder is closed to others; the files have to be readable for the unprivileged users of the containers.
set -eu
folder=${1:-$(dirname "$0")/s3}
if [ -e "$folder/credentials" ]; then
  echo "$folder/credentials: is there already; remove it to have new ones" >&2
  exit 2
fi
mkdir -p "$folder"
chmod 700 "$folder"
secret=$(openssl rand -hex 24)
cat > "$folder/credentials" <<END
[default]
aws_access_key_id = wavecity
aws_secret_access_key = $secret
END
cat > "$folder/identities.json" <<END
{"identities": [{"name": "wavecity", "credentials": [{"accessKey": "wavecity", "secretKey": "$secret"}], "actions": ["Admin"]}]}
END
chmod 644 "$folder/credentials" "$folder/identities.json"
