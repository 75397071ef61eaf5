#!/usr/bin/env bash
# Tests Spindle: installs what is missing, builds, checks the form of the code, runs the unit tests and the tests that
# mount. Ends with a line `N passed, N failed`, and fails if anything did.
#
#   scripts/test.sh          all of it
#   scripts/test.sh lint     formatter, linter, import arrows
#   scripts/test.sh unit     the tests beside the code
#   scripts/test.sh mount    the tests that mount; they need root and /dev/fuse and are skipped without
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

part=${1:-all}
case "$part" in all | lint | unit | mount) ;; *) die "usage: scripts/test.sh [lint|unit|mount]" ;; esac

need_packages fuse3 libfuse2 libdeflate0 libgcrypt20 fuse2fs exfat-fuse qemu-utils qemu-system-common qemu-system-x86 ovmf fdisk gdisk parted fio \
  e2fsprogs attr acl \
  libcap2-bin mtools dosfstools exfatprogs ntfs-3g squashfs-tools xorriso genisoimage udftools udfclient libarchive-tools \
  sleuthkit ewf-tools afflib-tools 7zip bximage cloop-utils wimtools bchunk partclone zstd lz4 xz-utils lzip plzip bzip2 lbzip2 pigz tabix \
  zip cryptsetup-bin zsh fish man-db groff mandoc perl g++ make python3 time rsync util-linux procps
need_node
need_modules
# udev gives everybody /dev/fuse; a bare machine without udev may not have done so, and tests mount as a normal user.
if [ "$(id -u)" = 0 ] && [ -c /dev/fuse ]; then chmod 666 /dev/fuse; fi

# Everything the tests make is in here, and goes with it. Open to all: some tests work as a user of their own.
tests_folder=$(mktemp -d "${TMPDIR:-/tmp}/spindle-test.XXXXXX")
chmod 1777 "$tests_folder"
trap 'remove_tree "$tests_folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
logs=$tests_folder/logs
mkdir "$logs"
export TMPDIR=$tests_folder

passed=0 failed=0 skipped=0 summary=()

# step NAME COMMAND...: a check that holds or not; one that doesn't counts as one failure.
step() {
  local name=$1 log=$logs/step started=$SECONDS
  shift
  if "$@" >"$log" 2>&1; then
    summary+=("$name: ${green}fine${plain} ($((SECONDS - started)) s)")
  else
    heading "$name"
    cat "$log"
    failed=$((failed + 1))
    summary+=("$name: ${red}failed${plain}")
  fi
}

# suite NAME COMMAND...: counts what a run of ava reports as TAP; shows what failed and why something was skipped.
suite() {
  local name=$1 counts=$logs/counts started=$SECONDS status=0 p=0 f=0 s=0 ended=0
  shift
  heading "$name"
  rm -f "$counts"
  "$@" 2>"$logs/stderr" | awk -v counts="$counts" '
    # A test is settled at the next one: a comment beneath it may say that it was skipped.
    function settle() { if (state == "ok") passed++; state = "" }
    /^not ok .* # TODO/ { settle(); failing = 0; skipped++; print "to do:" substr($0, index($0, " - ") + 2); next }
    /^not ok / { settle(); failed++; failing = 1; print; next }
    /^ok .* # SKIP/ {
      settle(); failing = 0; skipped++
      title = substr($0, index($0, " - ") + 3); sub(/ # SKIP.*/, "", title); print "skipped: " title; next
    }
    /^ok / { settle(); failing = 0; state = "ok"; title = substr($0, index($0, " - ") + 3); next }
    /^#   *[Ss]kipped/ && state == "ok" { state = ""; skipped++; sub(/^# *[Ss]kipped[: ]*/, ""); print "skipped: " title ": " $0; next }
    /^1\.\.[0-9]/ { settle(); failing = 0; ended = 1; next }
    failing && NF { print }
    END { settle(); print passed + 0, failed + 0, skipped + 0, ended + 0 > counts }' || status=$?
  [ ! -e "$counts" ] || read -r p f s ended <"$counts"
  # A test file that ends its process, or a run that breaks off, leaves no `not ok` behind.
  if [ "$status" != 0 ] && { [ "$f" = 0 ] || [ "$ended" = 0 ]; }; then
    f=$((f + 1))
    say "not ok - the run itself broke off with exit code $status; the end of its messages:"
    tail -n 40 "$logs/stderr"
  elif [ "$f" != 0 ] && [ -s "$logs/stderr" ]; then
    say "The end of what the tests wrote:"
    tail -n 40 "$logs/stderr"
  elif [ $((p + s)) = 0 ]; then
    f=1
    say "not ok - no test was found"
  fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  summary+=("$name: $p passed, $f failed, $s skipped ($((SECONDS - started)) s)")
}

step "build and types" build
case "$part" in
  all | lint)
    step "format and lint" npx biome check .
    step "import arrows" node dist/scripts/check-arrows.js
    ;;
esac
# The first script has the unit tests' pattern in package.json; the scripts' own tests are added here.
case "$part" in all | unit) suite "unit tests" npm test --silent -- --tap "dist/scripts/**/*.test.js" ;; esac
case "$part" in all | mount) suite "mount tests" npm run --silent test:mount -- --tap ;; esac

heading "Summary"
printf '%s\n' "${summary[@]}"
if [ "$skipped" = 0 ]; then say "$passed passed, $failed failed"; else say "$passed passed, $failed failed, $skipped skipped"; fi
[ "$failed" = 0 ]
