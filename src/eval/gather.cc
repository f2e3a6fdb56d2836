#include "eval/gather.h"

#include <ATen/ATen.h>

#include <cstring>

namespace farskip {
namespace {

// As whole numbers, which every transport carries.
constexpr int64_t word = sizeof(int64_t);

int64_t words_of(int64_t num_bytes) { return (num_bytes + word - 1) / word; }

}  // namespace

std::vector<std::string> gather_texts(Transport& transport, const std::string& own) {
  if (transport.size() == 1) return {own};
  const at::Tensor size = at::full({1}, std::ssize(own), at::kLong);
  const at::Tensor sizes = transport.all_gather(size, "sizes of results").await().contiguous();
  const int64_t* bytes = sizes.const_data_ptr<int64_t>();
  std::vector<int64_t> words;
  for (int r = 0; r < transport.size(); ++r) words.push_back(words_of(bytes[r]));
  const at::Tensor data = at::zeros({words_of(std::ssize(own))}, at::kLong);
  std::memcpy(data.mutable_data_ptr<int64_t>(), own.data(), own.size());
  const at::Tensor all = transport.all_gather(data, "results", words).await().contiguous();
  std::vector<std::string> texts;
  const int64_t* from = all.const_data_ptr<int64_t>();
  for (int r = 0; r < transport.size(); from += words[r], ++r) {
    texts.emplace_back(reinterpret_cast<const char*>(from), static_cast<size_t>(bytes[r]));
  }
  return texts;
}

}  // namespace farskip
