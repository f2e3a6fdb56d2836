#include "transport/io_priority.h"

#include <pthread.h>

namespace farskip {

RealTimeChildren::RealTimeChildren() {
  if (pthread_getschedparam(pthread_self(), &policy_, &parameters_) != 0) return;
  sched_param lowest{};
  lowest.sched_priority = sched_get_priority_min(SCHED_FIFO);
  permitted_ = pthread_setschedparam(pthread_self(), SCHED_FIFO, &lowest) == 0;  // new threads inherit it
}

RealTimeChildren::~RealTimeChildren() {
  if (permitted_) pthread_setschedparam(pthread_self(), policy_, &parameters_);
}

}  // namespace farskip
