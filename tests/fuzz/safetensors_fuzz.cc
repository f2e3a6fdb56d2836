// fuzz_safetensors COUNT [SEED [FIRST]]: reads COUNT damaged safetensors files and indices as far as they can be read.
// Each gives its tensors or an Error; anything else ends the program and tells the number of the input, which
// `fuzz_safetensors 1 SEED NUMBER` makes again. Built with sanitizers by tests/long/15_safetensors_fuzz.sh.

#include <ATen/ATen.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "model/safetensors.h"
#include "model/safetensors_writer.h"
#include "tests/fuzz/mutations.h"

namespace farskip::fuzz {
namespace {

using Tensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Valid files, which together have every dtype, empty tensors, scalars and none at all.
std::vector<Tensors> sources() {
  const at::Tensor values = at::arange(-6, 6).reshape({3, 4});
  Tensors every;
  for (const auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort,
                           at::kChar, at::kByte, at::kBool, at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    every.emplace_back(c10::toString(dtype), values.to(dtype));
  }
  const Tensors few = {{"model.embed_tokens.weight", at::ones({8, 4})},
                       {"model.layers.0.mlp.gate.weight", at::ones({4, 4}, at::kBFloat16)},
                       {"empty", at::empty({0, 7}, at::kLong)},
                       {"scalar", at::scalar_tensor(2.5)}};
  return {every, few, {{"one", at::arange(100).to(at::kHalf)}}};
}

/// Every byte of every tensor is read. True where the input was accepted.
bool read_all(const std::string& path) {
  try {
    const SafetensorsReader reader(path);
    for (const auto& name : reader.names()) {
      const at::Tensor tensor = reader.tensor(name);
      (void)tensor.to(at::kDouble).sum().item<double>();
      reader.release(name);
    }
    return true;
  } catch (const Error& error) {
    if (std::string(error.what()).size() > 20'000) throw std::runtime_error("an error of more than 20,000 characters");
    return false;
  }
}

/// A folder that is removed with this object.
class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "farskip-fuzz-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string operator/(const char* name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

class Fuzzer {
 public:
  explicit Fuzzer(uint64_t seed) : seed_(seed) {
    for (const auto& tensors : sources()) {
      save_safetensors(folder_ / "valid.safetensors", tensors);
      valid_.push_back(read_file(folder_ / "valid.safetensors"));
    }
    std::filesystem::create_directory(folder_ / "sharded");
    const std::vector<TensorSpec> specs = {{"a", at::kFloat, {10}}, {"b", at::kFloat, {10}}, {"c", at::kFloat, {1}}};
    ShardedWriter writer(folder_ / "sharded", specs, 80);
    for (const auto& spec : specs) writer.write(spec.name, at::ones(spec.shape));
    writer.commit();
    index_ = read_file(folder_ / "sharded/model.safetensors.index.json");
    file_ = ::memfd_create("mutated", 0);  // in memory: a disk would make so many small files slow
    index_file_ = folder_ / "sharded/model.safetensors.index.json";
  }

  /// Input `number` of this seed.
  bool run(uint64_t number) {
    Mutator mutator(seed_ * 1'000'003 + number);
    if (number % 10 == 9) {
      replace(index_file_, mutator.index(index_));
      return read_all(folder_ / "sharded");
    }
    const std::string file = mutator.file(valid_[number % valid_.size()]);
    if (::ftruncate(file_, 0) != 0 ||
        ::pwrite(file_, file.data(), file.size(), 0) != static_cast<ssize_t>(file.size())) {
      throw std::runtime_error("the input cannot be written");
    }
    return read_all("/proc/self/fd/" + std::to_string(file_));
  }

 private:
  /// Without the fsync of write_file.
  static void replace(const std::string& path, const std::string& text) {
    std::FILE* file = std::fopen(path.c_str(), "w");
    if (!file || std::fwrite(text.data(), 1, text.size(), file) != text.size() || std::fclose(file) != 0) {
      throw std::runtime_error("the index cannot be written");
    }
  }

  const Folder folder_;
  const uint64_t seed_;
  std::vector<std::string> valid_;
  std::string index_, index_file_;
  int file_ = -1;
};

volatile uint64_t current_input = 0;

/// A crash names its input, too.
void tell_crash(int signal) {
  char text[64];
  const int length = std::snprintf(text, sizeof(text), "signal %d at input %llu\n", signal,
                                   static_cast<unsigned long long>(current_input));
  if (::write(STDERR_FILENO, text, static_cast<size_t>(length)) < 0) std::abort();
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

int run(uint64_t count, uint64_t seed, uint64_t first) {
  Fuzzer fuzzer(seed);
  for (const int signal : {SIGBUS, SIGABRT, SIGSEGV, SIGFPE}) ::signal(signal, tell_crash);
  uint64_t accepted = 0;
  for (uint64_t i = first; i < first + count; ++i) {
    current_input = i;
    const auto begin = std::chrono::steady_clock::now();
    try {
      accepted += fuzzer.run(i);
    } catch (const std::exception& error) {
      std::printf("seed %llu, input %llu: not an Error: %s\n", static_cast<unsigned long long>(seed),
                  static_cast<unsigned long long>(i), error.what());
      return 1;
    }
    if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(20)) {
      std::printf("seed %llu, input %llu took more than 20 s\n", static_cast<unsigned long long>(seed),
                  static_cast<unsigned long long>(i));
      return 1;
    }
  }
  std::printf("%llu damaged inputs: %llu could be read, %llu were refused\n", static_cast<unsigned long long>(count),
              static_cast<unsigned long long>(accepted), static_cast<unsigned long long>(count - accepted));
  // Changed values and names are valid files; if nothing else were made, nothing would be tested.
  return count < 1000 || (accepted > count / 100 && count - accepted > count / 2) ? 0 : 1;
}

}  // namespace
}  // namespace farskip::fuzz

int main(int argc, char** argv) {
  const auto argument = [&](int i, uint64_t absent) { return argc > i ? std::strtoull(argv[i], nullptr, 10) : absent; };
  return farskip::fuzz::run(argument(1, 1000), argument(2, 1), argument(3, 0));
}
