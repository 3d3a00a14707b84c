#!/bin/sh
# The database of compose.yaml, when its volume is made: one role that owns and migrates, one that serves and may neither change
# nor delete events. Neither is the server's superuser. The passwords come from the environment, or from compose's secrets.
set -eu
given() { cat "/run/secrets/$1"; }
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
  --set owner_password="${SENTINEL_OWNER_PASSWORD:-$(given SENTINEL_OWNER_PASSWORD)}" \
  --set serving_password="${SENTINEL_SERVING_PASSWORD:-$(given SENTINEL_SERVING_PASSWORD)}" <<'SQL'
CREATE ROLE sentinel_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE sentinel LOGIN PASSWORD :'serving_password';
CREATE DATABASE sentinel OWNER sentinel_owner;
REVOKE ALL ON DATABASE sentinel FROM PUBLIC;
GRANT CONNECT ON DATABASE sentinel TO sentinel;
SQL
