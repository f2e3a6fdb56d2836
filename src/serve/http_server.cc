#include "serve/http_server.h"

#include <fmt/format.h>
#include <httplib.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/progress.h"
#include "serve/api_error.h"
#include "serve/connections.h"
#include "serve/request_head.h"

namespace farskip::serve {
namespace {

/// What the library reads a request from and writes its answer to: the checked head, exactly the body that it
/// announces, the client.
class RequestStream : public httplib::Stream {
 public:
  /// `received`: bytes behind the head that have come already; what is behind the body stays in it.
  RequestStream(ClientSocket& client, const RequestHead& head, std::string& received, const HttpServerOptions& options)
      : client_(client),
        head_(head),
        received_(received),
        options_(options),
        body_left_(head.chunked ? options.max_body_bytes + options.max_head_bytes : head.content_length),
        deadline_(monotonic_seconds() + options.body_s) {
    if (body_left_ == 0) client.have_request();
  }

  bool is_readable() const override { return true; }
  bool is_writable() const override { return !client_.is_gone(); }
  ssize_t read(char* data, size_t size) override {
    if (head_read_ < head_.text.size()) {
      const size_t count = head_.text.copy(data, size, head_read_);
      head_read_ += count;
      return static_cast<ssize_t>(count);
    }
    if (body_left_ == 0) {
      too_large_ |= head_.chunked;
      return head_.chunked ? -1 : 0;
    }
    if (received_.empty()) {
      char block[16384];
      const ssize_t count = client_.read(block, sizeof(block), deadline_);
      if (count <= 0) {
        broken_ = true;
        return -1;
      }
      received_.assign(block, count);
    }
    const size_t count = std::min({size, received_.size(), static_cast<size_t>(body_left_)});
    received_.copy(data, count);
    received_.erase(0, count);
    body_left_ -= static_cast<int64_t>(count);
    if (body_left_ == 0) client_.have_request();
    return static_cast<ssize_t>(count);
  }
  ssize_t write(const char* data, size_t size) override {
    return client_.write({data, size}, options_.stall_s) ? static_cast<ssize_t>(size) : -1;
  }
  void get_remote_ip_and_port(std::string&, int& port) const override { port = 0; }
  void get_local_ip_and_port(std::string&, int& port) const override { port = 0; }
  socket_t socket() const override { return 0; }  // the library only asks whether select() could take it

  bool too_large() const { return too_large_; }
  /// Another request cannot follow: some of this one's body is unread, or where it ends is not known here.
  bool must_close() const { return broken_ || head_.chunked || body_left_ > 0; }

 private:
  ClientSocket& client_;
  const RequestHead& head_;
  std::string& received_;
  const HttpServerOptions& options_;
  size_t head_read_ = 0;
  int64_t body_left_;
  double deadline_;
  bool too_large_ = false, broken_ = false;
};

/// The request that this thread's library call is about.
struct Current {
  ClientSocket* client;
  const RequestHead* head;
  RequestStream* stream;
};

HttpAnswer answer_of(const ApiError& error) {
  HttpAnswer answer{.status = error.status(), .body = dump(error.json())};
  if (error.status() == 429 || error.status() == 503) answer.headers.emplace_back("Retry-After", "1");
  if (error.status() == 401) answer.headers.emplace_back("WWW-Authenticate", "Bearer");
  return answer;
}

/// For answers without the library.
std::string plain_answer(const ApiError& error) {
  const HttpAnswer answer = answer_of(error);
  std::string text = fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n",
                                 answer.status, "Error", answer.content_type, answer.body.size());
  for (const auto& [name, value] : answer.headers) text += fmt::format("{}: {}\r\n", name, value);
  return text + "\r\n" + answer.body;
}

ApiError refusal(int max_connections) {
  return {503, fmt::format("the server has {} connections, all it serves at a time; try again", max_connections), "",
          "overloaded"};
}

}  // namespace

class HttpServer::Impl : private httplib::Server {
 public:
  Impl(const HttpServerOptions& options, std::vector<HttpRoute> routes,
       std::function<void(const std::string&, const std::string&)> authorize,
       std::function<void(const std::string&, const std::string&, int)> answered)
      : options_(options),
        routes_(std::move(routes)),
        authorize_(std::move(authorize)),
        answered_(std::move(answered)),
        listener_(options.host, options.port),
        connections_(
            listener_, {options.max_connections, options.patience_s, plain_answer(refusal(options.max_connections))},
            [this](Connection& connection) { serve(connection); }, [this] { answered_("other", "other", 503); }) {
    svr_sock_ = listener_.fd;  // the library streams only while it has one
    set_keep_alive_timeout(static_cast<time_t>(options.idle_s));
    set_keep_alive_max_count(1 << 20);  // it only says so; there is no such limit
    set_pre_routing_handler([this](const auto& request, auto& response) { return before_body(request, response); });
    set_error_handler([this](const auto& request, auto& response) { explain(request, response); });
    // Before it is sent, so that who has the answer finds it counted.
    set_post_routing_handler([this](const auto& request, auto& response) {
      answered_(known_method(request.method), known_path(request.path), response.status);
    });
    for (const HttpRoute& route : routes_) {
      const auto handler = [this, &route](const httplib::Request& request, httplib::Response& response) {
        handle(route, request, response);
      };
      route.method == "GET" ? Get(escaped(route.path), handler) : Post(escaped(route.path), handler);
    }
    connections_.start();
  }

  int port() const { return listener_.port; }
  Connections& connections() { return connections_; }

 private:
  /// A regular expression for this path alone.
  static std::string escaped(const std::string& path) {
    std::string pattern;
    for (const char c : path)
      pattern +=
          std::string_view("^$\\.*+?()[]{}|").find(c) != std::string::npos ? std::string("\\") + c : std::string(1, c);
    return pattern;
  }
  /// What is counted: clients must not be able to make up names.
  static std::string known_method(const std::string& method) {
    return method == "GET" || method == "HEAD" || method == "POST" ? method : "other";
  }
  std::string known_path(const std::string& path) const {
    for (const HttpRoute& route : routes_) {
      if (route.path == path) return path;
    }
    return "other";
  }

  /// The bytes of a head, cut off `received`; empty where there is no further request. Throws ApiError.
  std::string read_head(Connection& connection, std::string& received) {
    double deadline = monotonic_seconds() + options_.idle_s;
    bool begun = false;
    for (;;) {
      while (received.starts_with("\r\n")) received.erase(0, 2);
      if (!begun && !received.empty()) {
        begun = true;
        deadline = monotonic_seconds() + options_.head_s;
      }
      const size_t end = received.find("\r\n\r\n");
      if (end != std::string::npos && static_cast<int64_t>(end) <= options_.max_head_bytes) {
        std::string head = received.substr(0, end + 4);
        received.erase(0, end + 4);
        return head;
      }
      if (received.find("\n\n") != std::string::npos) throw ApiError(400, "lines of a request end with CR LF");
      if (std::ssize(received) > options_.max_head_bytes) {
        throw ApiError(431, fmt::format("the request's headers have more than {} bytes", options_.max_head_bytes));
      }
      char block[4096];
      const ssize_t count = connection.client.read(block, sizeof(block), deadline);
      if (count == 0 || (count < 0 && !begun)) return "";
      if (count < 0) throw ApiError(408, fmt::format("the request's headers took more than {} s", options_.head_s));
      received.append(block, count);
    }
  }

  void serve(Connection& connection) {
    std::string received;
    try {
      for (bool open = true; open && !connections_.closing();) {
        connection.answering = false;
        connection.client.await_request();
        const std::string raw = read_head(connection, received);
        if (raw.empty()) break;
        connection.answering = true;
        const RequestHead head = parse_request_head(raw, options_.max_body_bytes);
        RequestStream stream(connection.client, head, received, options_);
        current() = {&connection.client, &head, &stream};
        bool closed = false;
        open = process_request(stream, connections_.closing(), closed, nullptr) && !closed && !stream.must_close();
      }
    } catch (const ApiError& error) {
      answered_("other", "other", error.status());
      connection.client.write(plain_answer(error), options_.stall_s);
    } catch (const std::exception& error) {
      log(LogLevel::error, fmt::format("serve: a connection ended by {}", error.what()));
    }
    connection.answering = true;  // what was written is to be read
    connection.client.end_writing();
    // A second for the client to read what was written before the connection is closed with input unread.
    for (const double until = monotonic_seconds() + 1; !connection.client.drop_input() && monotonic_seconds() < until;)
      connection.client.wait_readable(until);
  }

  static Current& current() {
    thread_local Current current{};
    return current;
  }

  HandlerResponse before_body(const httplib::Request& request, httplib::Response& response) const {
    try {
      const std::string method = request.method == "HEAD" ? "GET" : request.method;
      std::string allowed;
      for (const HttpRoute& route : routes_) {
        if (route.path != request.path) continue;
        if (route.method == method) {
          authorize_(route.path, current().head->authorization);
          return HandlerResponse::Unhandled;
        }
        allowed += (allowed.empty() ? "" : ", ") + route.method;
      }
      if (allowed.empty()) {
        throw ApiError(404, fmt::format("{} {} is not served here; docs/serving.md lists what is", request.method,
                                        request.path.substr(0, 200)));
      }
      response.set_header("Allow", allowed);
      throw ApiError(405, fmt::format("{} allows {} alone", request.path, allowed));
    } catch (const ApiError& error) {
      fill(response, answer_of(error));
      return HandlerResponse::Handled;
    }
  }

  /// Answers of the library itself have no body yet.
  void explain(const httplib::Request&, httplib::Response& response) const {
    if (!response.body.empty() || response.content_provider_) return;
    const RequestStream* stream = current().stream;
    if (stream != nullptr && stream->too_large()) response.status = 413;
    const char* message = response.status == 413   ? "the body has more bytes than are read"
                          : response.status == 414 ? "the request's address is too long"
                                                   : "the request is no HTTP that is understood here";
    fill(response, answer_of(ApiError(response.status, message)));
  }

  void handle(const HttpRoute& route, const httplib::Request& request, httplib::Response& response) {
    const Current now = current();
    now.client->have_request();
    const auto is_gone = [this, client = now.client] { return connections_.aborting() || client->is_gone(); };
    HttpAnswer answer;
    try {
      answer = route.handle({request.method, request.path, request.body, is_gone});
    } catch (const ApiError& error) {
      answer = answer_of(error);
    } catch (const std::exception& error) {
      log(LogLevel::error, fmt::format("serve: {}: {}", request.path, error.what()));
      answer = answer_of(ApiError(500, "the server failed; its log says why"));
    }
    fill(response, answer);
    if (!answer.stream) return;
    const auto provider = [stream = answer.stream](size_t, httplib::DataSink& sink) {
      stream([&](const std::string& text) { return sink.write(text.data(), text.size()); });
      sink.done();
      return true;
    };
    if (now.head->is_http_1_0) {  // it knows no chunks: the end is where the connection ends
      response.set_header("Connection", "close");
      response.set_content_provider(answer.content_type, provider);
    } else {
      response.set_chunked_content_provider(answer.content_type, provider);
    }
  }

  static void fill(httplib::Response& response, const HttpAnswer& answer) {
    response.status = answer.status;
    if (!answer.stream) response.set_content(answer.body, answer.content_type);
    for (const auto& [name, value] : answer.headers) response.set_header(name, value);
  }

  const HttpServerOptions options_;
  const std::vector<HttpRoute> routes_;
  const std::function<void(const std::string&, const std::string&)> authorize_;
  const std::function<void(const std::string&, const std::string&, int)> answered_;
  Listener listener_;
  Connections connections_;
};

HttpServer::HttpServer(const HttpServerOptions& options, std::vector<HttpRoute> routes,
                       std::function<void(const std::string&, const std::string&)> authorize,
                       std::function<void(const std::string&, const std::string&, int)> answered)
    : impl_(std::make_unique<Impl>(options, std::move(routes), std::move(authorize), std::move(answered))) {}
HttpServer::~HttpServer() = default;

int HttpServer::port() const { return impl_->port(); }
int HttpServer::num_connections() const { return impl_->connections().size(); }
void HttpServer::shut_down(double grace_s) { impl_->connections().shut_down(grace_s); }

}  // namespace farskip::serve
