#pragma once
// HTTP for a few hundred clients, some of them slow, silent, hostile or gone.
//
// A thread serves each connection, at most max_connections of them. What waits for a client never waits for ever, and
// holds no other client up: where all threads are taken, a new client takes the place of the one that has kept its
// thread waiting longest (for a request, or for reading its answer); where none has, it is told 503 to come back.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace farskip::serve {

struct HttpRequest {
  std::string method, path, body;
  /// True once the client has closed the connection, or the server must end.
  std::function<bool()> is_gone;
};

struct HttpAnswer {
  int status = 200;
  std::string body = {};
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers = {};
  /// False: the client is gone.
  using Write = std::function<bool(const std::string&)>;
  /// Instead of `body`: writes it piece by piece. Must not throw.
  std::function<void(const Write&)> stream = {};
};

struct HttpRoute {
  std::string method, path;  ///< GET (HEAD with it) or POST; the whole path
  /// On a connection's thread. May throw ApiError.
  std::function<HttpAnswer(const HttpRequest&)> handle;
};

struct HttpServerOptions {
  std::string host = "0.0.0.0";
  int port = 8000;  ///< 0: any that is free
  int max_connections = 512;
  int64_t max_body_bytes = 8 << 20;
  int64_t max_head_bytes = 32 << 10;
  double head_s = 10;     ///< for a request's head, from its first byte
  double idle_s = 5;      ///< for its first byte
  double body_s = 60;     ///< for its body
  double stall_s = 20;    ///< a client that reads nothing for so long is gone
  double patience_s = 1;  ///< a client that keeps its thread waiting for so long may lose it to another
};

class HttpServer {
 public:
  /// `authorize` gets a known path and the Authorization header before the body is read; it throws ApiError. `answered`
  /// is told of every answer; a path that is no route's is "other". Throws Error where it cannot listen.
  HttpServer(const HttpServerOptions& options, std::vector<HttpRoute> routes,
             std::function<void(const std::string& path, const std::string& authorization)> authorize,
             std::function<void(const std::string& method, const std::string& path, int status)> answered);
  /// Ends at once.
  ~HttpServer();

  int port() const;
  int num_connections() const;
  /// Takes no more connections nor requests and waits until those being answered are done; after `grace_s` their
  /// clients count as gone.
  void shut_down(double grace_s);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace farskip::serve
