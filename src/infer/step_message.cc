#include "infer/step_message.h"

#include <bit>

#include "base/error.h"

namespace farskip {
namespace {

/// One after the other in or out: both directions name the fields once, in one order.
class Writer {
 public:
  void number(int64_t value) { numbers.push_back(value); }
  void field(const int64_t& value) { number(value); }
  void field(const uint64_t& value) { number(static_cast<int64_t>(value)); }
  void field(const bool& value) { number(value); }
  void field(const double& value) { number(std::bit_cast<int64_t>(value)); }
  void field(const int32_t& value) { number(value); }
  template <typename T, typename Each>
  void list(const std::vector<T>& values, Each each) {
    number(std::ssize(values));
    for (const T& value : values) each(value);
  }

  std::vector<int64_t> numbers;
};

class Reader {
 public:
  explicit Reader(std::span<const int64_t> numbers) : left_(numbers) {}
  int64_t number() {
    if (left_.empty()) fail("the plan of a step ends early; do all ranks run the same version?");
    const int64_t value = left_.front();
    left_ = left_.subspan(1);
    return value;
  }
  void field(int64_t& value) { value = number(); }
  void field(uint64_t& value) { value = static_cast<uint64_t>(number()); }
  void field(bool& value) { value = number() != 0; }
  void field(double& value) { value = std::bit_cast<double>(number()); }
  void field(int32_t& value) { value = static_cast<int32_t>(number()); }
  template <typename T, typename Each>
  void list(std::vector<T>& values, Each each) {
    const int64_t size = number();
    if (size < 0 || size > std::ssize(left_)) {
      fail("the plan of a step has a list of {} with {} numbers left; do all ranks run the same version?", size,
           left_.size());
    }
    values.resize(size);
    for (T& value : values) each(value);
  }
  bool at_end() const { return left_.empty(); }

 private:
  std::span<const int64_t> left_;
};

template <typename Stream, typename Options>
void pass_sampling(Stream& s, Options& o) {
  s.field(o.temperature);
  s.field(o.top_k);
  s.field(o.top_p);
  s.field(o.min_p);
  s.field(o.repetition_penalty);
  s.field(o.presence_penalty);
  s.field(o.frequency_penalty);
  s.field(o.seed);
}

template <typename Stream, typename Message>
void pass(Stream& s, Message& m) {
  const auto single = [&](auto& value) { s.field(value); };
  s.list(m.plan.removed, single);
  s.list(m.plan.admitted, [&](auto& admission) {
    s.field(admission.id);
    s.field(admission.cache);
  });
  s.list(m.admitted, [&](auto& state) {
    s.field(state.id);
    s.field(state.cache);
    s.list(state.tokens, single);
    s.field(state.num_prompt);
    pass_sampling(s, state.sampling);
    s.field(state.stream);
    s.field(state.num_logprobs);
  });
  s.list(m.plan.chunks, [&](auto& chunk) {
    s.field(chunk.id);
    s.field(chunk.cache);
    s.field(chunk.position);
    s.field(chunk.num_tokens);
    s.field(chunk.samples);
    s.field(chunk.num_prompt_logits);
    s.list(chunk.new_pages, single);
  });
}

}  // namespace

std::vector<int64_t> StepMessage::encode() const {
  Writer writer;
  writer.number(static_cast<int64_t>(kind));
  pass(writer, *this);
  return std::move(writer.numbers);
}

StepMessage StepMessage::decode(std::span<const int64_t> numbers) {
  Reader reader(numbers);
  StepMessage message;
  const int64_t kind = reader.number();
  if (kind < 0 || kind > static_cast<int64_t>(Kind::stop))
    fail("a plan of kind {}; do all ranks run the same version?", kind);
  message.kind = static_cast<Kind>(kind);
  pass(reader, message);
  if (!reader.at_end()) fail("the plan of a step does not end where it should; do all ranks run the same version?");
  return message;
}

}  // namespace farskip
