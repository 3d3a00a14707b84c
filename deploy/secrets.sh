#!/bin/sh
# Makes the secrets of compose.yaml, once: a folder `secrets` here that only its owner can enter, a file for each. The files are
# readable for all, since containers have users of their own, and the folder is what closes them.
set -eu
umask 077
mkdir secrets   # refuses when it is there: other peppers lose every API key, another secret key what was stored encrypted
cd secrets
for name in POSTGRES_PASSWORD SENTINEL_OWNER_PASSWORD SENTINEL_SERVING_PASSWORD SENTINEL_SECRET_KEY; do
  openssl rand -hex 32 > "$name"
done
echo "1:$(openssl rand -hex 32)" > SENTINEL_KEY_PEPPERS
echo "postgresql://sentinel:$(cat SENTINEL_SERVING_PASSWORD)@database/sentinel" > DATABASE_URL
echo "postgresql://sentinel_owner:$(cat SENTINEL_OWNER_PASSWORD)@database/sentinel" > SENTINEL_OWNER_DATABASE_URL
chmod 444 ./*
