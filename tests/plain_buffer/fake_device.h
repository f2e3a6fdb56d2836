#pragma once
// A device as far as the order of its work goes: a stream is a thread that carries out one piece after another, an
// event a latch. Work on buffers "of the device" goes to the calling thread's current stream, so that the thread
// sanitizer sees every pair of accesses that no chain of events puts in order.

#include <functional>
#include <memory>

namespace farskip::testing {

class FakeStream {
 public:
  FakeStream();
  ~FakeStream();  ///< when all is done
  void enqueue(std::function<void()> work);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The calling thread's; at first one of its own, as every rank has a stream for its computation.
FakeStream& current_stream();

/// Computation of so many microseconds on the current stream.
void enqueue_computation(double us);

/// Blocks until the current stream is through.
void synchronize();

}  // namespace farskip::testing
