#pragma once
// A server over a scripted engine, on a port of its own.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <thread>

#include "serve/api_server.h"
#include "tests/serve/client.h"
#include "tests/serve/fake_service.h"

namespace farskip::testing {

inline void sleep_ms(double milliseconds) {
  std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(milliseconds));
}
/// Asks every millisecond; false if the condition does not come true within so many seconds.
template <typename Condition>
bool wait_until(double seconds, Condition&& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    sleep_ms(1);
  }
  return true;
}

class SmallServer : public ::testing::Test {
 protected:
  SmallServer() {
    options.http.host = "127.0.0.1";
    options.http.port = 0;
  }
  /// With other options or another model; called by itself where a test does not.
  void start() { server = std::make_unique<serve::ApiServer>(service, model, options); }
  int port() {
    if (!server) start();
    return server->port();
  }
  Answer complete(const nlohmann::json& body) { return post(port(), "/v1/completions", body); }
  Answer chat(const nlohmann::json& body) { return post(port(), "/v1/chat/completions", body); }

  FakeService service;
  serve::ServedModel model = byte_model();
  serve::ApiServerOptions options;
  std::unique_ptr<serve::ApiServer> server;
};

}  // namespace farskip::testing
