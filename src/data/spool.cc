#include "data/spool.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "base/error.h"

namespace farskip {
namespace {

[[noreturn]] void fail_io(const char* action, const std::string& beside) {
  fail("cannot {} a temporary file beside {}: {}", action, beside, std::generic_category().message(errno));
}

int open_nameless(const std::string& folder) {
  const int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0) return fd;
  // A file system without nameless files: the name goes away at once.
  std::string pattern = folder + "/.spool-XXXXXX";
  const int named = ::mkostemp(pattern.data(), O_CLOEXEC);
  if (named >= 0) ::unlink(pattern.c_str());
  return named;
}

}  // namespace

Spool::Spool(const std::string& beside) : beside_(beside) {
  const std::filesystem::path folder = std::filesystem::path(beside).parent_path();
  const int fd = open_nameless(folder.empty() ? "." : folder.string());
  if (fd < 0) fail_io("create", beside_);
  file_.reset(::fdopen(fd, "w+b"));
  if (!file_) {
    ::close(fd);
    fail_io("create", beside_);
  }
}

void Spool::append(const void* data, size_t num_bytes) {
  if (std::fwrite(data, 1, num_bytes, file_.get()) != num_bytes) fail_io("write", beside_);
}

void Spool::replay(size_t block_bytes, const std::function<void(std::span<const std::byte>)>& block) {
  if (std::fflush(file_.get()) != 0) fail_io("write", beside_);
  std::rewind(file_.get());
  std::vector<std::byte> bytes(block_bytes);
  while (const size_t num_read = std::fread(bytes.data(), 1, block_bytes, file_.get())) {
    block({bytes.data(), num_read});
  }
  if (std::ferror(file_.get()) != 0) fail_io("read", beside_);
  std::fseek(file_.get(), 0, SEEK_END);
}

}  // namespace farskip
