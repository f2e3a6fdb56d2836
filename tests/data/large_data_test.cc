// Files larger than the memory a process may have: nothing grows with the text.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/philox.h"
#include "data/blend.h"
#include "data/gpt_dataset.h"
#include "data/indexed_layout.h"
#include "tests/base/temp_folder.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FARSKIP_SANITIZED 1
#else
#define FARSKIP_SANITIZED 0
#endif

namespace farskip {
namespace {

constexpr int64_t kNumSequences = 200'000;
constexpr int32_t kSequenceLength = 40'000;  // 8e9 tokens of two bytes: 16 GB, all but a few of them a hole in the file
constexpr int64_t kSeqLength = 4096;
constexpr int64_t kLimit = int64_t{4} << 20;
constexpr int32_t kMarker = 257;

void write_sparse(const std::string& prefix) {
  AtomicFile index(index_path(prefix));
  const auto put = [&](auto value) { index.write(&value, sizeof(value)); };
  index.write(kIndexMagic);
  put(kIndexVersion);
  put(TokenType::uint16);
  put(uint64_t{kNumSequences});
  put(uint64_t{kNumSequences + 1});
  for (int64_t i = 0; i < kNumSequences; ++i) put(kSequenceLength);
  for (int64_t i = 0; i < kNumSequences; ++i) put(i * kSequenceLength * 2);
  for (int64_t i = 0; i <= kNumSequences; ++i) put(i);
  index.commit();
  write_file(tokens_path(prefix), "");
  std::filesystem::resize_file(tokens_path(prefix), kNumSequences * kSequenceLength * 2);
  const int fd = ::open(tokens_path(prefix).c_str(), O_WRONLY);
  const uint16_t marker = kMarker;
  EXPECT_EQ(::pwrite(fd, &marker, 2, ((kNumSequences - 1) * kSequenceLength + 5) * 2), 2);
  ::close(fd);
}

/// What `work` returns (0 to 255) in a process whose private memory may grow by kLimit; 254 where that was too little.
/// Shared maps of files do not count: the system can drop their pages at any time.
int with_little_memory(const std::function<int()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    int64_t data_pages = 0, ignored = 0;
    std::FILE* statm = std::fopen("/proc/self/statm", "r");
    if (std::fscanf(statm, "%ld %ld %ld %ld %ld %ld", &ignored, &ignored, &ignored, &ignored, &ignored, &data_pages) !=
        6) {
      ::_exit(253);
    }
    std::fclose(statm);
    const auto bytes = static_cast<rlim_t>(data_pages * ::sysconf(_SC_PAGESIZE) + kLimit);
    const rlimit limit{bytes, bytes};
    ::setrlimit(RLIMIT_DATA, &limit);
    int result = 252;
    try {
      result = work();
    } catch (const std::bad_alloc&) {
      result = 254;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    ::_exit(result);
  }
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 251;
}

TEST(LargeData, MemoryDoesNotGrowWithTheText) {
  if (FARSKIP_SANITIZED) GTEST_SKIP() << "sanitizers need memory of their own";
  const TempFolder folder;
  const std::string prefix = folder / "large";
  write_sparse(prefix);
  // 28 MB of index arrays, built and read within 4 MiB.
  EXPECT_EQ(with_little_memory([&] {
              const auto data = std::make_shared<const IndexedDataset>(prefix);
              std::vector<int32_t> part(1);
              data->read(kNumSequences - 1, 5, part);
              if (part[0] != kMarker) return 1;
              const GptDataset dataset(data, {0, kNumSequences}, {.seq_length = kSeqLength, .num_samples = 1'000'000});
              if (dataset.num_epochs() != 1) return 2;
              int64_t num_markers = 0;
              for (int64_t i = 0; i < dataset.size(); i += 9973) {
                for (const int32_t token : dataset.get_sample(i)) num_markers += token != 0;
              }
              return num_markers <= 1 ? 0 : 3;
            }),
            0);
  // One of the orders as a vector does not fit.
  EXPECT_EQ(with_little_memory([] { return random_permutation(1'000'000, 1, 1).empty() ? 1 : 0; }), 254);
}

TEST(LargeData, BlendsOfManySamples) {
  if (FARSKIP_SANITIZED) GTEST_SKIP() << "sanitizers need memory of their own";
  const TempFolder folder;
  EXPECT_EQ(with_little_memory([&] {
              const BlendIndex index = BlendIndex::weighted({0.5, 0.25, 0.25}, 1'000'000, folder.string(), "train");
              return index.counts()[0] == 500'000 && index.counts()[1] == 250'000 ? 0 : 1;
            }),
            0);
}

}  // namespace
}  // namespace farskip
