#include "infer/step_channel.h"

#include <algorithm>

#include "base/error.h"

namespace farskip {

// The head is the number of numbers, then as many of them as fit.
void StepChannel::launch(StepMessage message) {
  if (transport_->size() == 1) {
    message_ = std::move(message);
    return;
  }
  const at::Tensor head = at::zeros({head_size}, at::kLong);
  if (!sends()) {
    head_ = transport_->broadcast(head, 0, "plan");
    return;
  }
  message_ = std::move(message);
  const std::vector<int64_t> numbers = message_.encode();
  const int64_t size = std::ssize(numbers), in_head = std::min(size, head_size - 1);
  head[0] = size;
  std::copy_n(numbers.begin(), in_head, head.mutable_data_ptr<int64_t>() + 1);
  head_ = transport_->broadcast(head, 0, "plan");
  if (size == in_head) return;
  const std::vector<int64_t> rest(numbers.begin() + in_head, numbers.end());
  rest_ = transport_->broadcast(at::tensor(rest, at::kLong), 0, "plan.rest");
}

StepMessage StepChannel::receive() {
  if (transport_->size() == 1) return std::move(message_);
  const at::Tensor head = head_.await();
  if (sends()) {
    if (rest_.valid()) rest_.await();
    return std::move(message_);
  }
  const int64_t* begin = head.const_data_ptr<int64_t>();
  const int64_t size = begin[0], in_head = std::min(size, head_size - 1);
  if (size < 0) fail("a plan of {} numbers; do all ranks run the same version?", size);
  std::vector<int64_t> numbers(begin + 1, begin + 1 + in_head);
  if (size > in_head) {
    const at::Tensor rest = transport_->broadcast(at::zeros({size - in_head}, at::kLong), 0, "plan.rest").await();
    numbers.insert(numbers.end(), rest.const_data_ptr<int64_t>(), rest.const_data_ptr<int64_t>() + rest.numel());
  }
  return StepMessage::decode(numbers);
}

void StepChannel::abandon() {
  head_.abandon();
  rest_.abandon();
}

}  // namespace farskip
