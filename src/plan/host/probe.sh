# What only the Docker host's kernel can say, each line behind the name of its file.
#
# Runs unprivileged, in the host's network namespace and in its own of everything else: what it
# reads of /proc and /sys is the kernel's, not the container's. What is not there or cannot be
# read is left out. Routes by the shell alone, the rest by busybox, which every k3s image has
# (https://github.com/k3s-io/k3s-root, package/busybox/busybox.config); not by the shell, since
# files below /proc/sys cannot be read byte by byte.
exec 2>/dev/null
while IFS= read -r line; do echo "/proc/net/route:$line"; done </proc/net/route
grep '' /proc/cgroups /proc/filesystems /proc/loadavg /proc/self/attr/current \
  /proc/sys/fs/file-nr /proc/sys/fs/inotify/max_user_instances /proc/sys/fs/inotify/max_user_watches \
  /proc/sys/kernel/pid_max /proc/sys/kernel/threads-max \
  /sys/fs/cgroup/cgroup.controllers /sys/fs/selinux/enforce
grep -H '^Mem' /proc/meminfo
[ ! -e /proc/modules ] || echo '/proc/modules:there'
for module in br_netfilter overlay vxlan wireguard; do
  [ ! -d /sys/module/$module ] || echo "/sys/module:$module"
done
[ ! -d /proc/sys/net/bridge ] || echo '/sys/module:br_netfilter'
zcat /proc/config.gz | grep -E 'CONFIG_(BRIDGE_NETFILTER|NETFILTER_XT_MATCH_(COMMENT|CONNTRACK|STATISTIC)|OVERLAY_FS|VXLAN|WIREGUARD)[= ]' |
  while IFS= read -r line; do echo "/proc/config.gz:$line"; done
df -P -k / | while IFS= read -r line; do echo "df:$line"; done
exit 0
