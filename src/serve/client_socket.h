#pragma once
// A connection to a client who may be slow, silent or gone: every wait has an end.

#include <sys/types.h>

#include <atomic>
#include <string>
#include <string_view>

namespace farskip::serve {

class ClientSocket {
 public:
  /// Owns `fd`, a connected stream socket.
  explicit ClientSocket(int fd);
  ~ClientSocket();
  ClientSocket(const ClientSocket&) = delete;
  ClientSocket& operator=(const ClientSocket&) = delete;

  /// Bytes read; 0: the client sends no more; -1: an error, or nothing came until `deadline` (of monotonic_seconds()).
  ssize_t read(char* data, size_t size, double deadline);
  /// False: the client is gone, or took nothing for `stall_s`.
  bool write(std::string_view data, double stall_s);
  /// Writes what fits without waiting.
  void write_at_once(std::string_view data);
  /// The client has closed its side, or the connection is broken.
  bool is_gone() const;

  /// Says that no more comes.
  void end_writing();
  /// Drops what the client still sends (a close would otherwise take back what was written last); true once the client
  /// has closed. Does not wait.
  bool drop_input();
  /// From another thread: whoever waits for the client waits no longer, and it counts as gone.
  void interrupt();
  /// The same for reading alone.
  void interrupt_reading();

  bool wait_readable(double deadline);

  /// The owner waits for a request from now on, and has one.
  void await_request();
  void have_request() { waiting_since_ = 0; }
  /// Since when the owner waits for the client (of monotonic_seconds()); 0: it does not. Earlier by the time that it
  /// has waited before while the answer was written, so that a client who takes a byte now and then is seen as slow.
  double waiting_since() const { return waiting_since_.load(); }

 private:
  /// False once `deadline` has passed.
  bool wait(short events, double deadline);

  int fd_;
  std::atomic<double> waiting_since_ = 0;
  double waited_s_ = 0;  ///< since have_request()
};

/// A listening socket, and its port (of port 0: the one that the system chose). Throws Error: no such address, port in
/// use, not allowed.
struct Listener {
  Listener(const std::string& host, int port);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  int fd = -1;
  int port = 0;
};

}  // namespace farskip::serve
