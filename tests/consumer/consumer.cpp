/* SPDX-License-Identifier: MIT */
/*
 * A user of the installed library in C++11: owns the handles by unique_ptr, snapshots a region, goes on writing, and
 * compares the image with what was there at the cut. Exit code 0: equal; 77: no userfaultfd here; 1: anything else.
 */
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <uffdwp.h>

namespace
{

constexpr std::size_t length_bytes = std::size_t(1) << 20;

template <typename T, int (*release)(T *)> struct releaser {
	void operator()(T *handle) const
	{
		if (release(handle) != 0)
			std::fputs("a handle could not be released\n", stderr);
	}
};

using runtime_ptr = std::unique_ptr<uffdwp, releaser<uffdwp, uffdwp_close>>;
using region_ptr = std::unique_ptr<uffdwp_region, releaser<uffdwp_region, uffdwp_region_close>>;
using snapshot_ptr = std::unique_ptr<uffdwp_snapshot, releaser<uffdwp_snapshot, uffdwp_snapshot_free>>;

void require(int error, const char *what)
{
	char text[512];

	if (error == 0)
		return;
	uffdwp_error_text(text, sizeof(text));
	throw std::runtime_error(std::string(what) + ": " + std::to_string(error) + ": " + text);
}

std::string read_file(const char *path)
{
	std::ifstream file(path, std::ios::binary);

	return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

void take_snapshot(uffdwp_region *region, const char *path)
{
	uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	uffdwp_snapshot *raw = nullptr;

	options.path = path;
	require(uffdwp_snapshot_begin(region, &options, &raw), "begin");
	snapshot_ptr shot(raw);
	std::memset(uffdwp_region_base(region), 'b', length_bytes);
	require(uffdwp_snapshot_wait(shot.get(), -1, nullptr), "wait");
}

void run(uffdwp *runtime, const char *path)
{
	uffdwp_region *raw = nullptr;

	require(uffdwp_region_create(runtime, length_bytes, nullptr, &raw), "create");
	region_ptr region(raw);
	std::memset(uffdwp_region_base(region.get()), 'a', length_bytes);
	take_snapshot(region.get(), path);
	if (read_file(path) != std::string(length_bytes, 'a'))
		throw std::runtime_error("the image is not the cut");
}

} // namespace

int main(int argc, char **argv)
{
	uffdwp *raw = nullptr;
	int error = uffdwp_open(nullptr, &raw);

	if (error == -EPERM || error == -EACCES || error == -ENOSYS)
		return 77;
	try {
		require(error, "open");
		runtime_ptr runtime(raw);
		run(runtime.get(), argc == 2 ? argv[1] : "");
	} catch (const std::exception &failure) {
		std::fprintf(stderr, "%s\n", failure.what());
		return 1;
	}
	std::printf("C++11, libuffdwp %s: the image is the cut\n", uffdwp_version());
	return 0;
}
