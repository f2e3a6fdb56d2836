#include "serve/client_socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/progress.h"

namespace farskip::serve {

ClientSocket::ClientSocket(int fd) : fd_(fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));  // events are small and wanted at once
  const int bytes = 128 << 10;  // what a client that reads nothing may make the system keep
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

ClientSocket::~ClientSocket() { close(fd_); }

bool ClientSocket::wait(short events, double deadline) {
  const bool answering = waiting_since_ == 0;
  const double begin = monotonic_seconds();
  if (answering) waiting_since_ = begin - waited_s_;
  bool ready = false;
  for (;;) {
    const double left = deadline - monotonic_seconds();
    pollfd poll_for{fd_, events, 0};
    const int found = poll(&poll_for, 1, static_cast<int>(std::ceil(1e3 * std::clamp(left, 0.0, 1e5))));
    ready = found > 0;
    if (ready || (found < 0 && errno != EINTR) || left <= 0) break;
  }
  if (answering) {
    waited_s_ += monotonic_seconds() - begin;
    waiting_since_ = 0;
  }
  return ready;
}

void ClientSocket::await_request() {
  waited_s_ = 0;
  waiting_since_ = monotonic_seconds();
}

bool ClientSocket::wait_readable(double deadline) { return wait(POLLIN, deadline); }

ssize_t ClientSocket::read(char* data, size_t size, double deadline) {
  for (;;) {
    const ssize_t count = recv(fd_, data, size, 0);
    if (count >= 0) return count;
    if (errno == EINTR) continue;
    if ((errno != EAGAIN && errno != EWOULDBLOCK) || !wait(POLLIN, deadline)) return -1;
  }
}

bool ClientSocket::write(std::string_view data, double stall_s) {
  while (!data.empty()) {
    const ssize_t count = send(fd_, data.data(), data.size(), MSG_NOSIGNAL);
    if (count >= 0) {
      data.remove_prefix(count);
    } else if (errno != EINTR) {
      if (errno != EAGAIN && errno != EWOULDBLOCK) return false;
      if (!wait(POLLOUT, monotonic_seconds() + stall_s)) return false;
    }
  }
  return true;
}

void ClientSocket::write_at_once(std::string_view data) {
  [[maybe_unused]] const ssize_t count = send(fd_, data.data(), data.size(), MSG_NOSIGNAL);
}

bool ClientSocket::is_gone() const {
  pollfd poll_for{fd_, POLLRDHUP, 0};
  return poll(&poll_for, 1, 0) > 0 && (poll_for.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

void ClientSocket::end_writing() { shutdown(fd_, SHUT_WR); }

bool ClientSocket::drop_input() {
  char dropped[16384];
  for (int i = 0; i < 64; ++i) {  // a part of what a fast sender sends
    const ssize_t count = recv(fd_, dropped, sizeof(dropped), 0);
    if (count < 0) return errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
    if (count == 0) return true;
  }
  return false;
}

void ClientSocket::interrupt() { shutdown(fd_, SHUT_RDWR); }
void ClientSocket::interrupt_reading() { shutdown(fd_, SHUT_RD); }

Listener::Listener(const std::string& host, int wanted) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  const int status = getaddrinfo(host.empty() ? nullptr : host.c_str(), std::to_string(wanted).c_str(), &hints, &found);
  if (status != 0) fail("--host {}: {}; give an address of this machine", host, gai_strerror(status));
  int error = 0;
  for (const addrinfo* address = found; address != nullptr && fd < 0; address = address->ai_next) {
    const int candidate = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int on = 1;
    if (candidate >= 0) setsockopt(candidate, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));  // not while another listens
    if (candidate >= 0 && bind(candidate, address->ai_addr, address->ai_addrlen) == 0 && listen(candidate, 1024) == 0) {
      fd = candidate;
    } else {
      error = errno;
      if (candidate >= 0) close(candidate);
    }
  }
  freeaddrinfo(found);
  if (fd < 0) {
    fail("cannot listen on {} port {}: {}{}", host, wanted, std::strerror(error),
         error == EADDRINUSE ? "; choose another --port, or 0 for any that is free" : "");
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size);
  port = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                           : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
}

Listener::~Listener() {
  if (fd >= 0) close(fd);
}

}  // namespace farskip::serve
