#pragma once
// TensorBoard event files, as far as scalars need them: TFRecord framing (tensorflow/core/lib/io/record_writer.h)
// around Event messages (tensorflow/core/util/event.proto), encoded by hand.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace farskip {

/// CRC-32C (Castagnoli, polynomial 0x1EDC6F41 reflected), as in RFC 3720, appendix B.4.
uint32_t crc32c(std::string_view bytes);

/// Curves of one run, for `tensorboard --logdir FOLDER`. A run that starts again adds a file of its own; TensorBoard
/// shows the files of a folder as one run. Every failure throws Error naming the path.
class EventFile {
 public:
  /// Creates `folder` if need be, and in it events.out.tfevents.SECONDS.HOST.PID, readable at any moment up to the last
  /// flush.
  explicit EventFile(const std::string& folder);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  /// One point of each named curve, at the present time. REQUIRES: at least one.
  void add(int64_t step, const std::vector<std::pair<std::string, double>>& scalars);
  void flush();
  const std::string& path() const { return path_; }

 private:
  void write_record(const std::string& data);
  [[noreturn]] void fail_io() const;

  std::string path_;
  std::FILE* file_ = nullptr;
};

}  // namespace farskip
