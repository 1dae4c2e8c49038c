#!/bin/sh
# Serves a folder, and writes a page into it each second.
set -eu

greeting="hello from shell-loop"
folder=/srv/www

httpd -f -p 8080 -h "$folder" &
trap 'kill $!; exit 0' TERM

while :; do
    # By a new name first: nobody reads half a page.
    echo "$greeting" >"$folder/.version"
    mv "$folder/.version" "$folder/version"
    sleep 1
done
