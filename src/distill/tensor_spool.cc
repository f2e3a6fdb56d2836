#include "distill/tensor_spool.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace farskip {
namespace {

/// Marks storage that lies in a file.
struct Mapping {
  void* data;
  size_t bytes;
};

void unmap(void* context) {
  const auto* mapping = static_cast<Mapping*>(context);
  munmap(mapping->data, mapping->bytes);
  delete mapping;
}

}  // namespace

at::Tensor TensorSpool::keep(const at::Tensor& value) {
  if (folder_.empty() || value.numel() == 0) return value;
  if (value.storage().data_ptr().get_deleter() == &unmap && value.is_contiguous()) return value;
  const size_t bytes = value.nbytes();
  const int file = open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file < 0) fail("{}: no file for what waits can be made there: {}", folder_, std::strerror(errno));
  const int full = posix_fallocate(file, 0, static_cast<off_t>(bytes));
  void* data = full == 0 ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
  const int error = full == 0 ? errno : full;
  close(file);
  if (data == MAP_FAILED) fail("{}: {} bytes cannot be kept there: {}", folder_, bytes, std::strerror(error));
  at::DataPtr pointer(data, new Mapping{data, bytes}, &unmap, at::kCPU);
  const at::Storage storage(at::Storage::use_byte_size_t(), bytes, std::move(pointer));
  at::Tensor kept = at::empty({0}, value.options());
  kept.set_(storage, 0, value.sizes(), value.contiguous().strides());
  kept.copy_(value);
  madvise(data, bytes, MADV_DONTNEED);
  return kept;
}

}  // namespace farskip
