#pragma once
// The connections of a server: a thread each, at most so many. A new client finds a place as http_server.h says.

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "serve/client_socket.h"

namespace farskip::serve {

struct ConnectionsOptions {
  int max_connections = 512;
  double patience_s = 1;  ///< who keeps its thread waiting for so long may lose it to another
  std::string refusal;    ///< sent, whole, to those without a place
};

/// A client and what its thread does.
struct Connection {
  explicit Connection(int fd) : client(fd) {}
  ClientSocket client;
  std::atomic<bool> answering = false;  ///< a request has been read and its answer is not complete
};

class Connections {
 public:
  /// For clients of `listener`, which must outlive it. `serve` runs on a connection's thread and returns when it may be
  /// closed; must not throw. `refused` is called for each client that found no place.
  Connections(Listener& listener, ConnectionsOptions options, std::function<void(Connection&)> serve,
              std::function<void()> refused);
  /// Ends at once.
  ~Connections();
  /// Takes clients from now on. Called once.
  void start();

  int size() const;
  bool closing() const { return closing_; }    ///< no more requests are to be taken
  bool aborting() const { return aborting_; }  ///< all answers are to end
  /// Takes no more clients, lets those being answered finish for `grace_s`, then ends all.
  void shut_down(double grace_s);

 private:
  struct Running {
    explicit Running(int fd) : connection(fd) {}
    Connection connection;
    std::thread thread;
    std::atomic<bool> done = false;
    bool evicted = false;
  };
  /// Told to come back; closed once it has read that.
  struct Refused {
    explicit Refused(int fd);
    ClientSocket client;
    double until;
  };

  void accept_clients();
  void take(int fd);
  bool evict();
  void refuse(int fd);
  void reap();

  Listener& listener_;
  const ConnectionsOptions options_;
  const std::function<void(Connection&)> serve_;
  const std::function<void()> on_refused_;
  int wake_;
  std::atomic<bool> closing_ = false, aborting_ = false;
  mutable std::mutex mutex_;
  std::list<std::unique_ptr<Running>> running_;
  std::vector<std::unique_ptr<Refused>> refused_;  ///< of the acceptor
  std::thread acceptor_;
};

}  // namespace farskip::serve
