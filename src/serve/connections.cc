#include "serve/connections.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <system_error>

#include "base/error.h"
#include "base/progress.h"

namespace farskip::serve {

Connections::Refused::Refused(int fd) : client(fd), until(monotonic_seconds() + 1) {}

Connections::Connections(Listener& listener, ConnectionsOptions options, std::function<void(Connection&)> serve,
                         std::function<void()> refused)
    : listener_(listener),
      options_(std::move(options)),
      serve_(std::move(serve)),
      on_refused_(std::move(refused)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (wake_ < 0) fail("the server cannot start: too many open files (ulimit -n)");
}

void Connections::start() {
  acceptor_ = std::thread([this] { accept_clients(); });
}

Connections::~Connections() {
  shut_down(0);
  close(wake_);
}

int Connections::size() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(running_.size());
}

void Connections::shut_down(double grace_s) {
  closing_ = true;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_, &one, sizeof(one));
  if (acceptor_.joinable()) acceptor_.join();
  const double end = monotonic_seconds() + grace_s;
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      reap();
      if (running_.empty()) return;
      if (monotonic_seconds() >= end) aborting_ = true;
      for (auto& running : running_) {
        Connection& connection = running->connection;
        if (aborting_) {
          connection.client.interrupt();
        } else if (!connection.answering) {
          connection.client.interrupt_reading();
        }
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

void Connections::accept_clients() {
  while (!closing_) {
    pollfd poll_for[2] = {{listener_.fd, POLLIN, 0}, {wake_, POLLIN, 0}};
    poll(poll_for, 2, refused_.empty() ? 1000 : 20);
    std::erase_if(refused_, [](const auto& refused) {
      return refused->client.drop_input() || monotonic_seconds() > refused->until;
    });
    {
      const std::lock_guard lock(mutex_);
      reap();
    }
    if (closing_ || (poll_for[0].revents & POLLIN) == 0) continue;
    const int fd = accept4(listener_.fd, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0) {
      take(fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));  // until a connection ends
    }
  }
  refused_.clear();
}

void Connections::take(int fd) {
  const std::lock_guard lock(mutex_);
  if (std::ssize(running_) >= options_.max_connections && !evict()) return refuse(fd);
  running_.push_back(std::make_unique<Running>(fd));
  Running& own = *running_.back();
  try {
    own.thread = std::thread([this, &own] {
      serve_(own.connection);
      own.done = true;
    });
  } catch (const std::system_error&) {  // no more threads
    on_refused_();
    own.connection.client.write_at_once(options_.refusal);
    running_.pop_back();
  }
}

/// Makes room; false: nobody keeps a thread waiting. As many as are allowed may be on their way out besides.
bool Connections::evict() {
  Running* longest = nullptr;
  double since = monotonic_seconds() - options_.patience_s;
  int64_t num_evicted = 0;
  for (auto& running : running_) {
    num_evicted += running->evicted ? 1 : 0;
    const double waiting = running->connection.client.waiting_since();
    if (running->evicted || waiting == 0 || waiting > since) continue;
    since = waiting;
    longest = running.get();
  }
  if (longest == nullptr || num_evicted >= options_.max_connections) return false;
  longest->evicted = true;
  longest->connection.client.interrupt();
  return true;
}

void Connections::refuse(int fd) {
  on_refused_();
  auto refused = std::make_unique<Refused>(fd);
  refused->client.write_at_once(options_.refusal);
  refused->client.end_writing();
  if (refused_.size() >= 64) refused_.erase(refused_.begin());
  refused_.push_back(std::move(refused));
}

/// REQUIRES: mutex_ is held.
void Connections::reap() {
  std::erase_if(running_, [](const auto& running) {
    if (!running->done) return false;
    running->thread.join();
    return true;
  });
}

}  // namespace farskip::serve
