# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The library of broken images, tests/images/NAME: see the README there.

image_said() {
	local code=0
	echo "\$ $*"
	"$VHDCLONE" "$@" >out 2>err </dev/null || code=$?
	cat out err | sed "s,$PWD/,,g"
	echo "exit $code"
}

image_case() {
	local dir=$TOP/tests/images/$1 before
	# shellcheck disable=SC1091
	. "$dir/make.sh"
	before=$(hash_of bad.vhdx)
	{
		unchanged image_said check -v bad.vhdx
		image_said check --repair bad.vhdx
		image_said check -v bad.vhdx
	} >../said
	# Whatever is wrong: what there is can be dumped.
	unchanged vc 0 dump bad.vhdx
	json 'len(j["headers"]), len(j["region-tables"])' >../parts
	same "$(cat ../parts)" '(2, 2)'
	[ -z "${UPDATE_IMAGES-}" ] || cp ../said "$dir/expect"
	diff "$dir/expect" ../said || fail "check says something else"
	# Nobody else sees more, once it is repaired.
	if [ "$(tail -n 1 ../said)" = 'exit 0' ]; then
		"$VHDX" check --quiet bad.vhdx || fail "not repaired"
	fi
	if [ -e bad.vhdx.undo ]; then
		vc 0 check --undo bad.vhdx.undo bad.vhdx
		same "$(cat out err)" ''
	fi
	same "$(hash_of bad.vhdx)" "$before" "the image, at the end,"
}

for image_dir in "$TOP"/tests/images/*/; do
	image_dir=$(basename "$image_dir")
	eval "test_image_${image_dir//-/_}() { image_case $image_dir; }"
done
