#include "train/optimizer_state.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdio>

#include "base/error.h"

namespace farskip {

std::string StateRun::name(const std::string& kind) const {
  return whole() ? fmt::format("{}.{}", kind, tensor) : fmt::format("{}.{}[{}:{}]", kind, tensor, begin, begin + size);
}

std::vector<StateRun> state_runs(const ParameterTable& table, const std::vector<ParameterSlice>& slices,
                                 int64_t first_expert, int64_t num_experts) {
  std::vector<StateRun> runs;
  for (size_t s = 0; s < slices.size(); ++s) {
    const ParameterSlice& slice = slices[s];
    int64_t offset = 0;  // of the piece in the parameter, as this rank holds it
    const auto& pieces = table[slice.id].pieces;
    for (size_t p = 0; p < pieces.size(); ++p) {
      const TensorPiece& piece = pieces[p];
      const bool held = piece.expert < 0 || (piece.expert >= first_expert && piece.expert < first_expert + num_experts);
      if (!held) continue;
      const int64_t size = c10::multiply_integers(piece.shape);
      const int64_t begin = std::max(offset, slice.begin), end = std::min(offset + size, slice.begin + slice.size);
      if (begin < end)
        runs.push_back({s, begin - slice.begin, end - begin, slice.id, p, begin - offset, piece.name, piece.shape});
      offset += size;
    }
  }
  return runs;
}

StateReader::StateReader(const std::string& source) : reader_(source) {
  for (const std::string& name : reader_.names()) {
    const auto bracket = name.find('[');
    Part part{0, c10::multiply_integers(reader_.spec(name).shape), name};
    if (bracket != std::string::npos) {
      long long begin = 0, end = 0;
      if (std::sscanf(name.c_str() + bracket, "[%lld:%lld]", &begin, &end) != 2 || end - begin != part.end) {
        fail("{}: '{}' holds {} elements; expected those that its name says", source, name, part.end);
      }
      part = {begin, end, name};
    }
    parts_[name.substr(0, bracket)].push_back(part);
  }
}

bool StateReader::contains(const std::string& kind, const std::string& tensor) const {
  return parts_.count(fmt::format("{}.{}", kind, tensor)) > 0;
}

at::Tensor StateReader::read(const std::string& kind, const StateRun& run) const {
  const std::string name = fmt::format("{}.{}", kind, run.tensor);
  const auto found = parts_.find(name);
  if (found == parts_.end()) fail("{}: {} is missing", reader_.source(), name);
  const at::Tensor out = at::empty({run.size}, at::kFloat);
  int64_t filled = 0;
  for (const Part& part : found->second) {
    const int64_t begin = std::max(run.begin, part.begin), end = std::min(run.begin + run.size, part.end);
    if (begin >= end) continue;
    const at::Tensor stored = reader_.tensor(part.name).reshape({-1});
    out.narrow(0, begin - run.begin, end - begin).copy_(stored.narrow(0, begin - part.begin, end - begin));
    reader_.release(part.name);
    filled += end - begin;
  }
  if (filled != run.size)
    fail("{}: of {} elements {} to {} only {} of {} are there", reader_.source(), name, run.begin, run.begin + run.size,
         filled, run.size);
  return out;
}

}  // namespace farskip
