# in-image.sh ROOT USER [NAME=value...] -- COMMAND...: runs COMMAND as a pod would in the image
# unpacked at ROOT: that user, that environment, a read-only root, writable /nix and /tmp, and a
# copy of folder $SHARE at /tmp/share. With $NIX that folder is at /nix, with $OUT that one at
# /tmp/out. Run it below `unshare --mount --pid --fork`, so that nothing else of it remains.
set -eu
root=$1 user=$2
shift 2
environment=HOME=/tmp # no value has a space in it
while [ "$1" != -- ]; do
  environment="$environment $1"
  shift
done
shift
mount --bind "$root" "$root"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
if [ -n "${NIX-}" ]; then
  mount --bind "$NIX" "$root/nix"
elif [ -d "$root/nix" ]; then
  mount -t tmpfs -o mode=2775,gid=65100 nix "$root/nix"
fi
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir "$root/tmp/share"
cp -r "$SHARE/." "$root/tmp/share"
chown -R "$user" "$root/tmp/share"
if [ -n "${OUT-}" ]; then
  mkdir "$root/tmp/out"
  mount --bind "$OUT" "$root/tmp/out"
fi
mount -o remount,ro,bind "$root"
# The image's own `env` and PATH are none of the caller's.
exec env -i $environment "$(command -v chroot)" --userspec="$user" "$root" "$@"
