#pragma once
// OpenAI's API over an engine: /v1/completions, /v1/chat/completions, /v1/models, and what operators ask for: /health,
// /ping, /version, /metrics.

#include <functional>
#include <memory>
#include <string>

#include "infer/engine.h"
#include "serve/http_server.h"
#include "serve/served_model.h"

namespace farskip::serve {

struct ApiServerOptions {
  HttpServerOptions http;
  std::string api_key;           ///< what clients of /v1 must send as a bearer token; empty: nothing
  int64_t max_sequences = 1024;  ///< of a request: prompts times n
  /// Why the engine serves no more; empty while it does. Absent: it always does.
  std::function<std::string()> failure = {};
};

class ApiServer {
 public:
  /// Answers from now on. `service` must outlive it. Throws Error where it cannot listen.
  ApiServer(GenerationService& service, ServedModel model, ApiServerOptions options);
  ~ApiServer();

  int port() const;
  int num_connections() const;
  /// Takes no more requests, finishes those that run within `grace_s` and ends the others.
  void shut_down(double grace_s);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace farskip::serve
