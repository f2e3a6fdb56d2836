// How fast are inference's products? y = x W^T for M rows of x, against the library's, with weights as they are and in
// 8 and 4 bits. Each answer is checked first; then all are timed in turns on weights that no cache holds, beside a loop
// that only reads memory.
//
//   few_rows [rounds=60] [type=bfloat16|float32] [n=N k=K]

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <fmt/ranges.h>

#include <cstdio>

#include "base/error.h"
#include "base/stats.h"
#include "nn/for_machine.h"
#include "nn/inference_weight.h"
#include "trace/table.h"
#include "transport/clock.h"

namespace farskip {
namespace {

struct Setting {
  int64_t rounds = 60, n = 0, k = 0;
  std::vector<at::ScalarType> types = {at::kBFloat16, at::kFloat};
  std::vector<std::pair<int64_t, int64_t>> shapes = {{2048, 2048}, {2816, 2048}, {10944, 2048}, {102400, 2048}};

  static Setting parse(int argc, char** argv) {
    Setting setting;
    for (int i = 1; i < argc; ++i) {
      const std::string text = argv[i], key = text.substr(0, text.find('=')),
                        value = text.substr(std::min(text.size(), key.size() + 1));
      if (key == "type" && (value == "bfloat16" || value == "float32")) {
        setting.types = {value == "float32" ? at::kFloat : at::kBFloat16};
        continue;
      }
      int64_t* field = key == "rounds" ? &setting.rounds : key == "n" ? &setting.n : key == "k" ? &setting.k : nullptr;
      if (field == nullptr) fail("{}: expected rounds=N, type=bfloat16, type=float32, n=N or k=K", text);
      *field = std::strtoll(value.c_str(), nullptr, 10);
      if (*field < 1) fail("{}: expected a positive number after {}=", text, key);
    }
    if (setting.n > 0 && setting.k > 0) setting.shapes = {{setting.n, setting.k}};
    return setting;
  }
};

/// Reads some 256 MiB; returns bytes per microsecond.
double read_bandwidth(const at::Tensor& memory) {
  const auto* words = static_cast<const uint64_t*>(memory.const_data_ptr());
  const int64_t num = static_cast<int64_t>(memory.nbytes()) / 8;
  std::atomic<uint64_t> result = 0;
  const double begin = now_us();
  nn::parallel_rows(num / 65536, 65536, [&, words](int64_t first, int64_t end) FARSKIP_INLINE {
    uint64_t mix[32] = {};
    for (int64_t i = first * 65536; i < end * 65536; i += 32) {
      for (int64_t j = 0; j < 32; ++j) mix[j] |= words[i + j];
    }
    for (uint64_t word : mix) result ^= word;
  });
  return static_cast<double>(memory.nbytes()) / (now_us() - begin);
}

/// Several copies of one weight, so that each product reads it from memory.
class Weights {
 public:
  Weights(const at::Tensor& weight, int64_t copies, nn::Quantization quantization)
      : stack_({copies, weight.size(0), weight.size(1)}, weight.scalar_type(), quantization) {
    for (int64_t e = 0; e < copies; ++e) stack_.put(weight, 0, e);
  }
  const nn::InferenceWeight& stack() const { return stack_; }

  at::Tensor multiply(const at::Tensor& x, int64_t copy) const {
    at::Tensor offsets = at::zeros({stack_.num_experts() + 1}, at::kLong);
    offsets.slice(0, copy + 1).fill_(x.size(0));
    return stack_.multiply_experts(x, offsets);
  }

 private:
  nn::InferenceWeight stack_;
};

void check(const at::Tensor& y, const at::Tensor& x, const at::Tensor& weight, const char* what) {
  const at::Tensor exact = x.to(at::kDouble).mm(weight.to(at::kDouble).t());
  const double error = ((y.to(at::kDouble) - exact).norm() / exact.norm()).item<double>();
  const double bound = x.scalar_type() == at::kFloat ? 2e-6 : 4e-3;
  if (!(error < bound)) fail("{}: relative error {} of {} rows, more than {}", what, error, x.size(0), bound);
}

/// Rows of the table for one weight.
std::vector<std::vector<std::string>> compare(const Setting& setting, at::ScalarType type, int64_t n, int64_t k) {
  const int64_t bytes = n * k * static_cast<int64_t>(c10::elementSize(type));
  const int64_t copies = std::max<int64_t>(1, (256 << 20) / bytes);
  const at::Tensor weight = at::randn({n, k}).mul_(0.02).to(type), library = weight.expand({copies, n, k}).contiguous();
  const Weights own(weight, copies, nn::Quantization::none), int8(weight, copies, nn::Quantization::int8),
      int4(weight, copies, nn::Quantization::int4);
  const Weights* ours[] = {&own, &int8, &int4};
  const char* names[] = {"as it is", "int8", "int4"};
  at::Tensor read[3];  // what the products read
  for (int i = 0; i < 3; ++i) read[i] = nn::InferenceWeight(weight, static_cast<nn::Quantization>(i)).decoded();
  read[2] = read[2].to(type);
  const at::Tensor memory = at::ones({256 << 17}, at::kShort);
  std::vector<std::vector<std::string>> rows;
  for (const int64_t m : {1, 2, 4, 8, 64, 512}) {
    const at::Tensor x = at::randn({m, k}).to(type);
    for (int i = 0; i < 3; ++i) {
      check(ours[i]->multiply(x, copies - 1), x, read[i], names[i]);
    }
    int64_t copy = 0;
    const auto time = [&](const auto& product) {
      copy = (copy + 1) % copies;
      const double begin = now_us();
      product();
      return now_us() - begin;
    };
    std::vector<double> reading, theirs, times[3];
    const int64_t rounds = std::max<int64_t>(5, setting.rounds * 8 / (m + 7));
    for (int64_t round = 0; round < rounds; ++round) {
      reading.push_back(read_bandwidth(memory));
      theirs.push_back(time([&] { at::linear(x, library[copy]); }));
      for (int i = 0; i < 3; ++i) times[i].push_back(time([&] { ours[i]->multiply(x, copy); }));
    }
    const double bandwidth = percentile(reading, 90), fastest = percentile(theirs, 10);
    std::vector<std::string> row = {c10::toString(type), fmt::format("{} x {}", n, k), std::to_string(m),
                                    fmt::format("{:.2f}", fastest / 1e3)};
    for (const auto& t : times)
      row.push_back(fmt::format("{:.2f} ({:.2f})", median(theirs) / median(t), fastest / percentile(t, 10)));
    row.push_back(fmt::format("{:.1f}", bandwidth / 1e3));
    for (int i = 0; i < 3; ++i) {
      const auto bytes_read = static_cast<double>(ours[i]->stack().nbytes() / copies);
      row.push_back(fmt::format("{:.0f} %", 100 * bytes_read / percentile(times[i], 10) / bandwidth));
    }
    row.push_back(fmt::format("{:.0f}", 2e-3 * static_cast<double>(m * n * k) / percentile(times[0], 10)));
    rows.push_back(row);
  }
  return rows;
}

void run(const Setting& setting) {
  Table table{{"type", "weight", "rows", "library ms", "as it is", "int8", "int4", "reads GB/s", "as it is", "int8",
               "int4", "GFLOP/s"},
              {},
              ""};
  table.note = fmt::format(
      "{} threads, {} rounds in turns (fewer of many rows). library ms: the time that a tenth of its calls stay below; "
      "as it is, int8, int4: the library's time over ours by medians, in brackets by the fastest tenth; reads GB/s: "
      "what "
      "a loop that only reads reaches, and the share of it at which products read weights, both by the fastest tenth; "
      "GFLOP/s of weights as they are",
      at::get_num_threads(), setting.rounds);
  for (const auto type : setting.types) {
    for (const auto& [n, k] : setting.shapes) {
      for (auto& row : compare(setting, type, n, k)) {
        fmt::print(stderr, "{}\n", fmt::join(row, "  "));
        table.rows.push_back(std::move(row));
      }
    }
  }
  fmt::print("{}\n", render_text(table));
}

}  // namespace
}  // namespace farskip

int main(int argc, char** argv) {
  try {
    const at::NoGradGuard no_grad;
    farskip::run(farskip::Setting::parse(argc, argv));
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "few_rows: {}\n", error.what());
    return 1;
  }
}
