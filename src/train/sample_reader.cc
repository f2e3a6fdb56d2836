#include "train/sample_reader.h"

namespace farskip {

StepSamples SampleReader::next(int64_t iteration) {
  if (ahead_ == 0 || iteration >= end_) return read_(iteration);
  if (!background_ || background_->position() != iteration) {
    background_.reset();  // one thread at a time
    background_ = std::make_unique<Prefetcher<StepSamples>>(read_, iteration, end_, ahead_);
  }
  return background_->next();
}

}  // namespace farskip
