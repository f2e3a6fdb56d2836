#pragma once
// A list that is too long for memory: appended to a nameless file, read back from its beginning.

#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace farskip {

/// Bytes in a file that has no name (so nothing is left of it, even when the process is killed) in the folder of
/// `beside`. Throws Error for a full disk.
class Spool {
 public:
  explicit Spool(const std::string& beside);

  void append(const void* data, size_t num_bytes);
  /// Hands out everything appended so far, in blocks of `block_bytes` (the last may be shorter).
  void replay(size_t block_bytes, const std::function<void(std::span<const std::byte>)>& block);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::string beside_;
  std::unique_ptr<std::FILE, Close> file_;
};

/// A Spool of values of one type.
template <typename T>
class SpooledList {
 public:
  explicit SpooledList(const std::string& beside) : spool_(beside) {}

  void push_back(T value) {
    spool_.append(&value, sizeof(T));
    last_ = value;
    ++size_;
  }
  int64_t size() const { return size_; }
  /// REQUIRES: size() > 0.
  T back() const { return last_; }
  void for_each_block(const std::function<void(std::span<const T>)>& block) {
    spool_.replay(sizeof(T) << 16, [&](std::span<const std::byte> bytes) {
      block({reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)});
    });
  }

 private:
  Spool spool_;
  int64_t size_ = 0;
  T last_{};
};

}  // namespace farskip
