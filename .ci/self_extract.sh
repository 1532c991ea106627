#!/bin/sh
# PSMA in one file: this script, then a tar.gz of the deno runtime and the program. The first start
# unpacks it into a folder named after the archive's SHA-256; later starts run from there.
# Where: $PSMA_RUNTIME_DIR, else /var/lib/psma/runtime, else the user's cache: the first that will do.
# Needs sh, tail, gzip and tar, and one writable folder from which programs may run.
hash=@HASH@
skip=@SKIP@
user=$(id -u)
for base in "$PSMA_RUNTIME_DIR" "$CACHE_DIRECTORY" /var/lib/psma/runtime \
  "${XDG_CACHE_HOME:+$XDG_CACHE_HOME/psma}" "${HOME:+$HOME/.cache/psma}" \
  "/var/tmp/psma-$user" "${TMPDIR:-/tmp}/psma-$user"; do
  [ -n "$base" ] || continue
  home=$base/$hash
  if [ ! -x "$home/deno" ]; then
    # Only into a folder of our own: in /tmp anyone could have prepared one.
    { mkdir -p "$base" && [ -O "$base" ] && fresh=$(mktemp -d "$base/.new.XXXXXX"); } 2>/dev/null ||
      continue
    if tail -c "+$skip" "$0" | gzip -dc | tar -xf - -C "$fresh" &&
      "$fresh/deno" --version >/dev/null 2>&1; then
      chmod 755 "$fresh"
      # Two first starts at once: the later one finds the folder there and lands inside it.
      mv "$fresh" "$home" 2>/dev/null
      rm -rf "$home/${fresh##*/}"
    fi
    rm -rf "$fresh"
    [ -x "$home/deno" ] || continue
  fi
  # Never run what another user, other than root, has unpacked.
  [ -O "$home" ] || [ "$(stat -c %u "$home")" = 0 ] || continue
  DENO_NO_UPDATE_CHECK=1 DENO_DIR=$home/.deno
  export DENO_NO_UPDATE_CHECK DENO_DIR
  exec "$home/deno" run --quiet --no-config --no-lock --no-remote --no-npm --no-prompt -A \
    "$home/app/main.js" "$@"
done
echo "psma: Cannot unpack: no folder is both writable and executable (set PSMA_RUNTIME_DIR)" >&2
exit 126
