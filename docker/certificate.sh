#!/bin/sh
# Makes the certificate of Dask's parts, which is its own authority: docker/tls/dask.pem and dask.key, or in the folder named.
# Who has the key can run code on the workers. The folder is closed to others; the key itself has to be readable for the
# unprivileged user of the containers.
set -eu
folder=${1:-$(dirname "$0")/tls}
mkdir -p "$folder"
chmod 700 "$folder"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=wavecity-dask \
    -keyout "$folder/dask.key" -out "$folder/dask.pem"
chmod 644 "$folder/dask.key" "$folder/dask.pem"
