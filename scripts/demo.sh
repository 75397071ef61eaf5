#!/usr/bin/env bash
# Shows Spindle at work on a real disk: makes one with a GPT, a FAT32 and an ext4 partition full of files of this
# machine, images it, changes it, makes a differential, mounts both images, and compares everything with the source.
# Sets up what it needs, works as root and as a normal user, and removes all it made. Takes about 2 GB in $TMPDIR.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
[ $# = 0 ] || die "usage: scripts/demo.sh"

need_packages fuse3 mtools dosfstools fdisk e2fsprogs zstd
need_node
need_modules
build_is_current || { say "Building" && build; } || die "The build failed, see above."
[ -e /dev/fuse ] || die "There is no /dev/fuse here. Load it with: modprobe fuse" \
  "In a container, start that with: --device /dev/fuse --cap-add SYS_ADMIN"

folder=$(mktemp -d "${TMPDIR:-/tmp}/spindle-demo.XXXXXX")
spindle_js=$PWD/bin/spindle.js
trap 'cd / && remove_tree "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$folder"
free=$(df --output=avail -k . | tail -n 1)
[ "$free" -ge 2500000 ] || die "$folder has $((free / 1024)) MiB free, and the demo takes up to 2400. Set TMPDIR to a larger place."

wrong=0

spindle() { node "$spindle_js" "$@"; }

# run COMMAND...: shows a command as one would type it, what it says, and how long it took.
run() {
  local from=$EPOCHREALTIME status=0 word line=
  for word in "$@"; do
    case "$word" in *' '*) line+=" \"$word\"" ;; *) line+=" $word" ;; esac
  done
  printf '%s$%s%s\n' "$bold" "$line" "$plain"
  "$@" || status=$?
  [ $status = 0 ] || { say "${red}That failed with exit code $status.${plain}" && exit 1; }
  last=$(((${EPOCHREALTIME/[.,]/} - ${from/[.,]/}) / 1000))
  printf '  (%d.%02d s)\n' $((last / 1000)) $((last % 1000 / 10))
}

# quietly COMMAND...: what it says is shown only if it fails.
quietly() {
  local said
  said=$("$@" 2>&1) || { say "$*" "$said" && return 1; }
}

# check SENTENCE COMMAND...: whether what the sentence says is so.
check() {
  local sentence=$1
  shift
  if "$@" >/dev/null; then
    say "  ${green}yes${plain}  $sentence"
  else
    say "  ${red}NO${plain}   $sentence"
    wrong=$((wrong + 1))
  fi
}

size_of() { stat -c %s "$1"; }
sum_of() { sha256sum <"$1"; }
same_sum() { [ "$(sum_of "$1")" = "$(sum_of "$2")" ]; }
mib() { awk -v bytes="$1" 'BEGIN { printf bytes < 10485760 ? "%.2f MiB" : "%.0f MiB", bytes / 1048576 }'; }

# gather FROM MIB: copies subfolders and files of a folder of this machine to files/, as many as fit in so much.
gather() {
  local from=$1 left=$(($2 * 1024)) entry size
  [ -d "$from" ] || return 0
  mkdir -p "files$from"
  while IFS= read -r -d '' entry; do
    size=$(du -skx "$entry" 2>/dev/null | cut -f 1) || continue
    [ "${size:-0}" -gt 0 ] && [ "$size" -le "$left" ] || continue
    left=$((left - size))
    cp -a --no-preserve=ownership "$entry" "files$from/" 2>/dev/null || true # what a normal user may not read
  done < <(find "$from" -mindepth 1 -maxdepth 1 \( -type d -o -type f \) -print0 | sort -z)
}

heading "1. A disk: GPT, 64 MiB FAT32 system partition, ext4 with files of this machine"
mkdir files esp monday tuesday
gather /usr/share 180
gather "/usr/lib/$(uname -m)-linux-gnu" 180
gather /usr/bin 60
[ "$(du -sm files | cut -f 1)" -ge 300 ] || gather /usr/lib 300
chmod -R u+rwX files
file_count=$(find files -type f | wc -l)
# The file that is copied out of the mount later: the largest with a plain name.
copied=$(find files -type f -printf '%s %P\n' | grep -v '[^A-Za-z0-9 ./_+-]' | sort -rn | awk 'NF == 2 && !found++ { print $2 }')
cp "files/$copied" original.bin
printf 'title Demo\nlinux /vmlinuz\n' >esp/loader.conf
head -c 5000000 "files/$copied" >esp/vmlinuz

esp_at=1 esp_mib=64 root_at=65
root_mib=$(($(du -sm files | cut -f 1) * 5 / 4 + 64))
truncate -s $((root_at + root_mib + 1))M disk.raw
printf 'label: gpt\nstart=%dMiB, size=%dMiB, type=uefi, name=ESP\nstart=%dMiB, size=%dMiB, type=linux, name=root\n' \
  $esp_at $esp_mib $root_at $root_mib | sfdisk --quiet disk.raw
quietly mkfs.vfat -F 32 -s 1 -n ESP --offset $((esp_at * 2048)) disk.raw $((esp_mib * 1024))
export MTOOLS_SKIP_CHECK=1
mmd -i disk.raw@@${esp_at}M ::/EFI ::/EFI/BOOT
mcopy -i disk.raw@@${esp_at}M esp/loader.conf esp/vmlinuz ::/EFI/BOOT/
quietly mke2fs -q -t ext4 -L root -d files -E offset=$((root_at * 1024 * 1024)) disk.raw ${root_mib}M
rm -rf files
sfdisk --quiet --list --output Device,Start,Size,Type,Name disk.raw
say "$file_count files; $(mib "$(size_of disk.raw)"), of which $(mib $(($(stat -c '%b * %B' disk.raw)))) are not holes"

heading "2. Monday: an image of the disk"
run spindle create disk.raw monday.spin --label Monday
create_ms=$last
run spindle info monday.spin

heading "3. Tuesday: some files have changed; a differential holds only that"
cp --sparse=always disk.raw changed.raw
head -c 3000000 /dev/urandom >new-file
quietly debugfs -w -f - "changed.raw?offset=$((root_at * 1024 * 1024))" <<END
write new-file new-file
rm /$copied
END
printf 'title Changed\nlinux /vmlinuz\n' >esp/loader.conf
mcopy -o -i changed.raw@@${esp_at}M esp/loader.conf ::/EFI/BOOT/
say "On a copy of the disk: a file of 3 MB written, /$copied removed, loader.conf edited."
run spindle create --base monday.spin changed.raw tuesday.spin --label Tuesday
base_ms=$last

heading "4. Both as drives"
run spindle mount monday.spin monday --as disk
run spindle mount tuesday.spin tuesday --as disk
run ls -l --block-size=1M monday tuesday
run debugfs -R "dump /$copied copied-out.bin" monday/p2.raw 2>/dev/null
run debugfs -R "dump /new-file new-file-out" tuesday/p2.raw 2>/dev/null
run mcopy -i monday/p1.raw ::/EFI/BOOT/vmlinuz vmlinuz-out
run mcopy -i tuesday/p1.raw ::/EFI/BOOT/loader.conf loader-out
say "Are the bytes right?"
check "monday/disk.raw has the SHA-256 of the disk" same_sum monday/disk.raw disk.raw
check "tuesday/disk.raw has the SHA-256 of the changed disk" same_sum tuesday/disk.raw changed.raw
check "/$copied, copied out of monday/p2.raw, is the original" cmp copied-out.bin original.bin
check "/new-file, copied out of tuesday/p2.raw, is the one that was written" cmp new-file-out new-file
check "vmlinuz, copied out of monday/p1.raw, is the original" cmp vmlinuz-out esp/vmlinuz
check "loader.conf, copied out of tuesday/p1.raw, is the edited one" cmp loader-out esp/loader.conf

heading "5. Without Spindle: a full image is a zstd file of the disk"
say "${bold}\$ zstd -d < monday.spin | cmp - disk.raw${plain}"
unpacks() { zstd -q -d <monday.spin | cmp - disk.raw; }
check "zstd -d < monday.spin gives the disk, byte for byte" unpacks

heading "6. Checked, and back to a disk"
run spindle verify tuesday.spin
run spindle restore tuesday.spin restored.raw
restore_ms=$last
check "restored.raw is the changed disk" cmp restored.raw changed.raw

heading "7. Unmounted"
run spindle unmount monday
run spindle unmount tuesday
nothing_mounted() { [ -z "$(mounts_below "$folder")" ]; }
check "nothing is mounted any more" nothing_mounted

# row NAME FILE MS: sizes against the disk's data, and the throughput.
data=$(($(stat -c '%b * %B' disk.raw)))
row() {
  awk -v name="$1" -v bytes="$2" -v data="$data" -v ms="$3" 'BEGIN {
    printf "  %-34s %9.2f MiB   %5.1f %%   %6.2f s   %6.0f MiB/s\n", name, bytes / 1048576, 100 * bytes / data, ms / 1000, data / 1048.576 / (ms > 0 ? ms : 1)
  }'
}
heading "In figures ($(nproc) processors, $(mib "$data") of data on a disk of $(mib "$(size_of disk.raw)"))"
printf '  %-34s %13s   %7s   %8s   %12s\n' "" size "of data" time throughput
row "monday.spin, the full image" "$(size_of monday.spin)" "$create_ms"
row "tuesday.spin, the differential" "$(size_of tuesday.spin)" "$base_ms"
row "restored.raw" "$(($(stat -c '%b * %B' restored.raw)))" "$restore_ms"
say ""
if [ $wrong != 0 ]; then
  say "${red}$wrong of the checks failed.${plain}"
  exit 1
fi
say "All of it was right."
