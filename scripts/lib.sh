# Set-up shared by scripts/test.sh and scripts/demo.sh: packages, Node, npm, the build, and cleaning up mounts.
# To be sourced, with `set -euo pipefail`, from the folder that holds package.json.

# Debian gives a normal user no sbin, where mke2fs, sfdisk and losetup live.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

if [ -t 1 ]; then
  bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
  bold='' red='' green='' plain=''
  export NO_COLOR=1 FORCE_COLOR=0
fi

say() { printf '%s\n' "$*"; }
heading() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

# die MESSAGE...: what keeps the script from working at all. Exit code 2, as of a wrong argument.
die() {
  printf '%s\n' "$@" >&2
  exit 2
}

# has_package PACKAGE: whether what the scripts use of a Debian package is there, whoever installed it.
has_package() {
  case "$1" in
    fuse3) command -v fusermount3 ;;
    libfuse2) ldconfig -p | grep -F 'libfuse.so.2 ' ;;
    libdeflate0) ldconfig -p | grep -F 'libdeflate.so.0 ' ;;
    libgcrypt20) ldconfig -p | grep -F 'libgcrypt.so.20 ' ;;
    qemu-utils) command -v qemu-img ;;
    qemu-system-common) command -v qemu-storage-daemon ;;
    qemu-system-x86) command -v qemu-system-x86_64 ;;
    ovmf) [ -e /usr/share/OVMF/OVMF_CODE_4M.fd ] ;;
    mtools) command -v mcopy ;;
    dosfstools) command -v mkfs.vfat ;;
    fdisk) command -v sfdisk ;;
    gdisk) command -v sgdisk ;;
    e2fsprogs) command -v mke2fs && command -v debugfs ;;
    exfatprogs) command -v mkfs.exfat ;;
    ntfs-3g) command -v mkfs.ntfs ;;
    exfat-fuse) command -v mount.exfat-fuse ;;
    attr) command -v getfattr && command -v setfattr ;;
    acl) command -v setfacl ;;
    libcap2-bin) command -v setcap ;;
    squashfs-tools) command -v mksquashfs ;;
    udftools) command -v mkudffs ;;
    udfclient) command -v udfclient ;;
    libarchive-tools) command -v bsdtar ;;
    sleuthkit) command -v fls ;;
    ewf-tools) command -v ewfexport ;;
    afflib-tools) command -v affcat ;;
    7zip) command -v 7zz ;;
    cryptsetup-bin) command -v cryptsetup ;;
    cloop-utils) command -v create_compressed_fs ;;
    tabix) command -v bgzip ;;
    zstd) command -v zstd && command -v pzstd ;;
    wimtools) command -v wimlib-imagex ;;
    partclone) command -v partclone.restore ;;
    xz-utils) command -v xz ;;
    util-linux) command -v setpriv && command -v losetup ;;
    procps) command -v ps ;;
    man-db) command -v man ;;
    time) [ -x /usr/bin/time ] ;;
    *) command -v "$1" ;;
  esac >/dev/null 2>&1
}

# as_root COMMAND...: as root, or by sudo where that asks for no password.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_be_root() { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }

# apt_install PACKAGE...: the package lists are fetched only when they are too old for what is wanted.
apt_install() {
  local log apt=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends install "$@")
  log=$(mktemp)
  if as_root "${apt[@]}" >"$log" 2>&1 || { as_root apt-get -q update && as_root "${apt[@]}"; } >"$log" 2>&1; then
    rm -f "$log"
  else
    tail -n 20 "$log" >&2
    rm -f "$log"
    return 1
  fi
}

# need_packages PACKAGE...: installs what is missing if that is permitted; otherwise says what to do, and exits.
need_packages() {
  local package missing=()
  for package in "$@"; do has_package "$package" || missing+=("$package"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  # From Debian 13 and Ubuntu 24.04 on, libfuse2 has another name.
  if [[ " ${missing[*]} " == *' libfuse2 '* ]] && command -v apt-cache >/dev/null; then
    [ -z "$(apt-cache search --names-only '^libfuse2t64$' 2>/dev/null)" ] || missing=("${missing[@]/%libfuse2/libfuse2t64}")
  fi
  local advice=("These packages are missing: ${missing[*]}" "Install them with: sudo apt-get install ${missing[*]}")
  command -v apt-get >/dev/null || die "${advice[0]}" \
    "The names are Debian's; install what your system calls them, and run this again."
  may_be_root || die "${advice[@]}"
  say "Installing ${missing[*]}"
  apt_install "${missing[@]}" || die "apt-get failed, see above." "${advice[@]}"
}

need_node() {
  command -v node >/dev/null || die "Node.js is missing; Spindle needs version 20.15 or newer: https://nodejs.org/en/download"
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 15) ? 0 : 1)' ||
    die "Node.js $(node --version) is too old; Spindle needs version 20.15 or newer: https://nodejs.org/en/download"
  command -v npm >/dev/null || die "npm is missing; it comes with Node.js: https://nodejs.org/en/download"
}

# The lock file that npm leaves in node_modules is as old as the last install.
modules_are_current() { [ -e node_modules/.package-lock.json ] && [ ! node_modules/.package-lock.json -ot package-lock.json ]; }

need_modules() {
  modules_are_current && return 0
  # zstd-napi and fuse-native are compiled where no compiled file of theirs fits the machine.
  need_packages g++ make python3
  # Node's headers, where Node came with them: otherwise they are downloaded, which a closed network doesn't allow.
  local prefix
  prefix=$(node -p 'path.dirname(path.dirname(process.execPath))')
  if [ -z "${npm_config_nodedir:-}" ] && [ -e "$prefix/include/node/node_api.h" ]; then
    export npm_config_nodedir=$prefix
  fi
  say "Installing the npm packages of package-lock.json"
  npm ci --no-audit --no-fund --loglevel=error || die "npm ci failed, see above."
  touch node_modules/.package-lock.json
}

# build: compiles, and removes what earlier builds made of files that are gone.
build() {
  local file source status=0
  npm run --silent build || status=$?
  while IFS= read -r -d '' file; do
    source=${file#dist/}
    [ -e "${source%.js}.ts" ] || rm -f "$file"
  done < <(find dist -path dist/program -prune -o -name '*.js' -print0)
  [ $status != 0 ] || touch dist/.built
  return $status
}

build_is_current() {
  [ -e dist/.built ] && [ -z "$(find src scripts mount-tests package.json tsconfig.json \( -name '*.ts' -o -name '*.json' \) -newer dist/.built -print -quit)" ]
}

# mounts_below FOLDER: the mount points in FOLDER, innermost first.
mounts_below() {
  local point
  cut -d ' ' -f 5 /proc/self/mountinfo | while IFS= read -r point; do
    printf -v point '%b' "${point//\\/\\0}" # a space is written \040 there
    case "$point" in "$1"/*) printf '%s\n' "$point" ;; esac
  done | sort -r
}

# remove_tree FOLDER: ends the loop devices and mounts in a temporary folder of ours, then removes it.
remove_tree() {
  local folder=$1 device file point
  case "$folder" in */spindle-*) ;; *) return 0 ;; esac
  if [ "$(id -u)" = 0 ]; then
    losetup --noheadings --raw --list --output NAME,BACK-FILE 2>/dev/null | while read -r device file; do
      case "$file" in "$folder"/*) losetup --detach "$device" || true ;; esac
    done || true
  fi
  mounts_below "$folder" | while IFS= read -r point; do
    umount --lazy "$point" 2>/dev/null || fusermount3 -u -z "$point" 2>/dev/null || say "$point is still mounted" >&2
  done || true
  rm -rf --one-file-system "$folder"
}
