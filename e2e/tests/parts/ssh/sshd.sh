# sshd.sh ROOT WORK: runs the sshd of the Debian tree at ROOT with WORK at /tmp/work and the
# configuration there; user `git` owns WORK. Run it below `unshare --mount --pid --fork`, so that
# nothing of it remains.
set -eu
root=$1 work=$2
mount --bind "$root" "$root"
for folder in etc run tmp; do mount -t tmpfs -o mode=755 "$folder" "$root/$folder"; done
mkdir "$root/run/sshd" "$root/tmp/work"
mount --bind "$work" "$root/tmp/work"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
cat > "$root/etc/passwd" <<END
root:*:0:0:root:/root:/usr/bin/bash-static
sshd:*:100:65534:sshd:/run/sshd:/usr/sbin/nologin
git:*:1000:1000:git:/tmp/work:/usr/bin/bash-static
END
echo git:x:1000: > "$root/etc/group"
chown -R 1000:1000 "$root/tmp/work"
exec chroot "$root" /usr/sbin/sshd -D -e -f /tmp/work/sshd_config
