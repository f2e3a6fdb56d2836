// HTTP itself: broken requests, limits, keys, slow and vanishing clients, shutting down.

#include "base/error.h"
#include "tests/serve/small_server.h"

namespace farskip {
namespace {

using testing::Client;
using ::testing::HasSubstr;
using testing::post_text;
using testing::wait_until;

const std::string kSmall = R"({"prompt": "a", "max_tokens": 3})";
const std::string kStream = R"({"prompt": "a", "max_tokens": 900, "stream": true})";

class Http : public testing::SmallServer {
 protected:
  int status_of(const std::string& bytes) {
    Client client(port());
    client.send(bytes);
    const auto answer = client.read();
    EXPECT_TRUE(answer.status < 400 || !answer.error().empty()) << bytes.substr(0, 100);
    return answer.status;
  }
};

TEST_F(Http, PathsAndMethods) {
  const auto unknown = testing::get(port(), "/v2/nothing");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_THAT(unknown.error(), HasSubstr("GET /v2/nothing"));
  const auto wrong = testing::get(port(), "/v1/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "POST");
  EXPECT_EQ(status_of(post_text("/health", "{}")), 405);
  EXPECT_EQ(status_of("DELETE /v1/models HTTP/1.1\r\n\r\n"), 405);
  EXPECT_EQ(status_of("PUT /v1/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"), 405);
  EXPECT_EQ(status_of("OPTIONS / HTTP/1.1\r\n\r\n"), 404);
}

TEST_F(Http, BrokenRequests) {
  const std::string line = "POST /v1/completions HTTP/1.1\r\n";
  EXPECT_EQ(status_of("nonsense\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET /health HTTP/3\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET /health HTTP/1.1\n\n"), 400);
  EXPECT_EQ(status_of("GET /health HTTP/1.1\r\nno colon\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET /health HTTP/1.1\r\nbad name: 1\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET /health HTTP/1.1\r\nA: 1\r\n folded\r\n\r\n"), 400);
  EXPECT_EQ(status_of(std::string("GET /health HTTP/1.1\r\nA: ") + '\0' + "\r\n\r\n"), 400);
  EXPECT_EQ(status_of(line + "Content-Length: -1\r\n\r\n"), 400);
  EXPECT_EQ(status_of(line + "Content-Length: 99999999999999999999\r\n\r\n"), 400);
  EXPECT_EQ(status_of(line + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), 400);
  EXPECT_EQ(status_of(line + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"), 400);
  EXPECT_EQ(status_of(line + "Transfer-Encoding: gzip\r\n\r\n"), 501);
  EXPECT_EQ(status_of(line + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"), 400);
  EXPECT_EQ(status_of(line + "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}"), 415);
  EXPECT_EQ(status_of(line + "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 2\r\n\r\n{}"), 415);
  EXPECT_EQ(status_of(line + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"), 415);
  EXPECT_EQ(status_of("GET /" + std::string(9000, 'a') + " HTTP/1.1\r\n\r\n"), 414);
  EXPECT_EQ(status_of("GET /health HTTP/1.1\r\nA: " + std::string(40000, 'a') + "\r\n\r\n"), 431);
  EXPECT_EQ(status_of(std::string(100000, 'a')), 431);
  // What could make the library work hard is not passed on to it.
  EXPECT_EQ(status_of("GET /v1/models HTTP/1.1\r\nRange: bytes=0-1," + std::string(4000, '1') + "-\r\n\r\n"), 200);
  const auto plain = testing::get(port(), "/v1/models", "Accept-Encoding: gzip, br\r\n");
  EXPECT_EQ(plain.headers.count("content-encoding"), 0u);
  EXPECT_EQ(status_of(post_text("/v1/completions", kSmall)), 200);
}

TEST_F(Http, BodiesHaveALimit) {
  options.http.max_body_bytes = 1000;
  const std::string large = R"({"prompt": ")" + std::string(2000, 'a') + "\"}";
  EXPECT_EQ(status_of(post_text("/v1/completions", large)), 413);
  const auto chunk = [](const std::string& text) {
    char size[32];
    std::snprintf(size, sizeof(size), "%zx\r\n", text.size());
    return size + text + "\r\n";
  };
  const std::string chunked = "POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(status_of(chunked + chunk("{\"prompt\": ") + chunk("\"a\"}") + "0\r\n\r\n"), 200);
  std::string endless = chunked;
  for (int i = 0; i < 100; ++i) endless += chunk(large);
  EXPECT_EQ(status_of(endless), 413);
}

TEST_F(Http, ConnectionsServeSeveralRequests) {
  Client client(port());
  for (int i = 0; i < 3; ++i) {
    client.send(post_text("/v1/completions", kSmall));
    EXPECT_EQ(client.read().status, 200);
  }
  client.send(post_text("/v1/completions", kSmall) + "\r\n" + post_text("/v1/completions", kStream) +
              "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n");  // without waiting for answers
  EXPECT_EQ(client.read().json()["choices"][0]["text"], "Hel");
  EXPECT_FALSE(client.read().events().empty());
  EXPECT_EQ(client.read().status, 200);
  EXPECT_TRUE(client.is_closed());
  Client careful(port());
  const std::string request = post_text("/v1/completions", kSmall, "Expect: 100-continue\r\n");
  careful.send(request.substr(0, request.size() - kSmall.size()));
  EXPECT_THAT(careful.read_until("\r\n\r\n"), HasSubstr("100 Continue"));
  careful.send(kSmall);
  EXPECT_EQ(careful.read().status, 200);
  // A body that nobody reads is no next request.
  Client refused(port());
  refused.send("POST /nowhere HTTP/1.1\r\nContent-Length: 40\r\n\r\nGET /health HTTP/1.1\r\nA: smuggled   \r\n\r\n");
  EXPECT_EQ(refused.read().status, 404);
  EXPECT_EQ(refused.read(5).status, 0);
}

TEST_F(Http, KeysAreAsked) {
  options.api_key = "sk%41-secret";
  const auto with = [&](const std::string& authorization) {
    return testing::post(port(), "/v1/completions", kSmall, authorization);
  };
  EXPECT_EQ(with("Authorization: Bearer sk%41-secret\r\n").status, 200);
  for (const std::string wrong : {"", "Authorization: Bearer sk%41-secre\r\n", "Authorization: Bearer skA-secret\r\n",
                                  "Authorization: sk%41-secret\r\n", "Authorization: Bearer \r\n"}) {
    const auto answer = with(wrong);
    EXPECT_EQ(answer.status, 401) << wrong;
    EXPECT_EQ(answer.error("code"), "invalid_api_key");
    EXPECT_EQ(answer.headers.at("www-authenticate"), "Bearer");
  }
  EXPECT_EQ(testing::get(port(), "/v1/models").status, 401);
  EXPECT_EQ(testing::get(port(), "/health").status, 200);
  EXPECT_EQ(testing::get(port(), "/metrics").status, 200);
}

TEST_F(Http, AVanishedClientEndsItsRequest) {
  service.allow(0);
  for (const bool stream : {false, true}) {
    Client client(port());
    client.send(post_text("/v1/completions", stream ? kStream : kSmall));
    ASSERT_TRUE(wait_until(10, [&] { return service.num_open() == 1; }));
    client.vanish();
    EXPECT_TRUE(wait_until(10, [&] { return service.num_open() == 0; })) << stream;
    EXPECT_TRUE(wait_until(10, [&] { return server->num_connections() == 0; })) << stream;
  }
  EXPECT_EQ(service.num_cancelled(), 2u);
}

TEST_F(Http, AClientThatReadsNothingIsGivenUp) {
  options.http.stall_s = 0.2;
  testing::FakeService endless(1 << 20);
  endless.say(std::string(1 << 20, 'x'));
  serve::ApiServer server(endless, model, options);
  Client client(server.port(), 4096);
  client.send(post_text("/v1/completions", R"({"prompt": "a", "max_tokens": 1000000, "stream": true})"));
  EXPECT_TRUE(wait_until(60, [&] { return endless.num_cancelled() == 1 && server.num_connections() == 0; }));
}

TEST_F(Http, SlowClientsAreGivenUp) {
  options.http.head_s = 0.2;
  options.http.idle_s = 0.2;
  options.http.body_s = 0.2;
  Client silent(port()), half(port()), bodiless(port());
  half.send("GET /health HT");
  bodiless.send("POST /v1/completions HTTP/1.1\r\nContent-Length: 10\r\n\r\n{");
  EXPECT_EQ(silent.read().status, 0);
  EXPECT_EQ(half.read().status, 408);
  EXPECT_EQ(bodiless.read().status, 400);
  EXPECT_TRUE(wait_until(10, [&] { return server->num_connections() == 0; }));
}

TEST_F(Http, SlowClientsMakeRoomForOthers) {
  options.http.max_connections = 4;
  options.http.patience_s = 0.05;
  options.http.idle_s = options.http.head_s = options.http.body_s = 600;
  std::vector<std::unique_ptr<Client>> slow;
  for (int i = 0; i < 4; ++i) {
    slow.push_back(std::make_unique<Client>(port()));
    slow.back()->send(i < 2 ? "GET /hea" : "POST /v1/completions HTTP/1.1\r\nContent-Length: 10\r\n\r\n{");
  }
  ASSERT_TRUE(wait_until(10, [&] { return server->num_connections() == 4; }));
  testing::sleep_ms(60);
  for (int i = 0; i < 12; ++i) {
    EXPECT_TRUE(wait_until(20, [&] { return complete({{"prompt", "a"}}).status == 200; })) << i;
  }
  EXPECT_LE(server->num_connections(), 8);
}

TEST_F(Http, WhereAllAreBusyOthersAreToldToComeBack) {
  options.http.max_connections = 2;
  options.http.patience_s = 0.05;
  service.allow(0);
  Client first(port()), second(port());
  first.send(post_text("/v1/completions", kSmall));
  second.send(post_text("/v1/completions", kStream));
  ASSERT_TRUE(wait_until(10, [&] { return service.num_open() == 2; }));
  const auto answer = complete({{"prompt", "a"}});
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.at("retry-after"), "1");
  EXPECT_THAT(answer.error(), HasSubstr("the server has 2 connections"));
  service.allow_all();
  EXPECT_EQ(first.read().status, 200);
  EXPECT_EQ(second.read().events().size(), 14u);
  EXPECT_TRUE(wait_until(20, [&] { return complete({{"prompt", "a"}}).status == 200; })) << "both only wait now";
}

TEST_F(Http, ManyClientsAtOnce) {
  std::vector<std::thread> threads;
  std::atomic<int> num_right = 0;
  port();
  for (int i = 0; i < 64; ++i) {
    threads.emplace_back([&, i] {
      const auto answer = testing::post(port(), "/v1/completions", i % 2 ? kStream : kSmall);
      std::string text;
      if (i % 2) {
        for (const auto& event : answer.events()) text += event["choices"][0]["text"];
      } else {
        text = answer.json()["choices"][0]["text"];
      }
      num_right += text == (i % 2 ? "Hello, world." : "Hel");
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(num_right, 64);
}

TEST_F(Http, ShuttingDownFinishesWhatRuns) {
  service.allow(0);
  Client running(port()), idle(port()), reading(port());
  running.send(post_text("/v1/completions", kSmall));
  reading.send("GET /hea");
  ASSERT_TRUE(wait_until(10, [&] { return service.num_open() == 1 && server->num_connections() == 3; }));
  std::thread closing([&] { server->shut_down(600); });
  EXPECT_TRUE(idle.is_closed());
  EXPECT_TRUE(reading.is_closed());
  service.allow_all();
  EXPECT_EQ(running.read().json()["choices"][0]["text"], "Hel");
  closing.join();
  EXPECT_EQ(server->num_connections(), 0);
}

TEST_F(Http, ShuttingDownEndsWhatTakesTooLong) {
  service.allow(0);
  Client stream(port()), whole(port());
  stream.send(post_text("/v1/completions", kStream));
  whole.send(post_text("/v1/completions", kSmall));
  ASSERT_TRUE(wait_until(10, [&] { return service.num_open() == 2; }));
  server->shut_down(0.1);
  EXPECT_EQ(server->num_connections(), 0);
  EXPECT_TRUE(wait_until(10, [&] { return service.num_open() == 0; }));
}

TEST_F(Http, APortInUseIsSaid) {
  options.http.port = port();
  try {
    serve::ApiServer second(service, model, options);
    FAIL() << "two servers at one port";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("Address already in use; choose another --port"));
  }
  options.http.host = "203.0.113.7";
  EXPECT_THROW(serve::ApiServer(service, model, options), Error);
}

}  // namespace
}  // namespace farskip
