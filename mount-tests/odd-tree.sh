#!/bin/bash
# Fills the folder $1, a freshly mounted filesystem, with what filesystems find hard. What one of them can't hold is left
# out of it by the kernel's own refusal ("|| true").
set -e
cd "$1"
mkdir plain; cd plain
printf hello > hello; : > empty
for size in 1 59 60 61 100 140 160 200 1023 1024 1025 4095 4096 4097; do head -c $size /dev/urandom > size-$size; done
head -c 3000001 /dev/urandom > random
ln hello hello-again; ln hello ../hello-elsewhere
chmod 7777 size-59; chown 100000:4000000000 size-60
cd ..

mkdir links; cd links
for length in 1 58 59 60 61 120 160 1000 1020; do ln -s "$(printf "%${length}s" | tr ' ' t)" to-$length; done
ln -s $'\xff\xfe/\x01' odd-target
cd ..

mkdir special; cd special
mkfifo fifo; mknod null c 1 3; mknod disk b 8 17; mknod new-char c 300 70000; mknod new-block b 4095 1048575
mknod old-edge c 255 255; mknod both-edge c 255 256
perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => "socket", Listen => 1)'
cd ..

mkdir holes; cd holes
truncate -s 10M all; truncate -s 3G huge
dd if=/dev/urandom of=huge bs=4096 count=3 seek=500000 conv=notrunc status=none
dd if=/dev/urandom of=middle bs=1000 count=5 seek=1000 status=none; truncate -s 4M middle
for block in $(seq 0 2 1400); do echo $block; done |
  perl -ne 'chomp; open F, "+<", "comb" or open F, ">", "comb"; sysseek F, $_ * 4096, 0; syswrite F, "$_\n"; close F'
cp comb comb-1k-ends; truncate -s 5000001 comb-1k-ends
(fallocate -l 1M reserved && fallocate -o 300000 -l 100000 -n reserved-beyond && head -c 200000 /dev/urandom > written &&
  fallocate -l 3M written && head -c 900000 /dev/urandom > punched && fallocate -p -o 100000 -l 500000 punched) 2>/dev/null || true
cd ..

mkdir times; cd times
for time in 1901-12-14 1950-06-15T12:34:56.5 1969-12-31T23:59:59.999999999 2038-01-20 2106-03-01 2400-01-01T00:00:00.123456789; do
  touch -d "${time}Z" "$time" 2>/dev/null || true; done
ln -s x link; touch -h -d 2001-02-03T04:05:06.789Z link
cd ..

mkdir attributes; cd attributes
echo a > some; setfattr -n user.small -v value some; setfattr -n user.empty some; setfattr -n trusted.hidden -v 0x00ff some
setfattr -n user.$'n\xc3\xa4me' -v x some
echo b > block; setfattr -n user.large -v "$(head -c 600 /dev/zero | tr '\0' L)" block; setfattr -n user.more -v "$(head -c 100 /dev/zero | tr '\0' M)" block
cp --preserve=all block block-shared
(setfattr -n user.inode -v "$(head -c 20000 /dev/zero | tr '\0' E)" block) 2>/dev/null || true
(setfattr -n user.own -v "$(head -c 60000 /dev/zero | tr '\0' O)" some) 2>/dev/null || true
mkdir folder; setfattr -n user.on-folder -v y folder
echo c > acl; setfacl -m u:1234:rwx,g:70000:r,m:rx acl
setfacl -m d:u:1234:rx,d:g::r,u:5:w folder; echo d > folder/inherits
echo e > capable; chmod 755 capable; setcap cap_net_raw,cap_sys_admin+ep capable
ln -s nowhere link; setfattr -h -n trusted.on-link -v z link
mkfifo fifo; setfattr -n trusted.on-fifo -v z fifo
echo f > inline-and-attribute; setfattr -n user.a -v "$(head -c 40 /dev/zero | tr '\0' A)" inline-and-attribute
cd ..

mkdir names; cd names
: > "$(printf '%255s' | tr ' ' n)"; : > $'\xff\xfe\x80'; : > $'new\nline'; : > 'back\slash'; : > ' '; : > '...'; : > '-rf'; : > ümlaut; : > UPPER; : > $'\x01'
mkdir "$(printf '%255s' | tr ' ' d)"
cd ..

mkdir few; (cd few; : > a; : > b; mkdir c; : > c/d)
mkdir many; (cd many; seq -f 'a name of some length %06g' 1 1500 | xargs -d '\n' touch; seq -f 'a name of some length %06g' 1 7 1500 | xargs -d '\n' rm)
path=deep; for level in $(seq 1 40); do path=$path/level-$level; done; mkdir -p $path; echo bottom > $path/file
