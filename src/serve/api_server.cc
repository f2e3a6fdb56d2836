#include "serve/api_server.h"

#include <fmt/format.h>

#include <chrono>
#include <mutex>
#include <nlohmann/json.hpp>

#include "serve/api_error.h"
#include "serve/completion.h"

namespace farskip::serve {
namespace {

using nlohmann::json;

constexpr size_t kLargeBody = 256 << 10;  ///< bytes

/// True without telling by its time how much of a wrong key was right.
bool equal_keys(const std::string& a, const std::string& b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < b.size(); ++i) {
    difference |= static_cast<unsigned>(static_cast<unsigned char>(a[i % std::max<size_t>(1, a.size())]) ^
                                        static_cast<unsigned char>(b[i]));
  }
  return difference == 0;
}

json parse_body(const std::string& body) {
  if (body.empty()) throw ApiError(400, "the body is empty; send a JSON object");
  try {
    return json::parse(body);
  } catch (const json::exception& error) {
    const std::string text = error.what();
    const size_t begin = text.find("] ");  // behind the library's number of the error
    throw ApiError(400, "the body is no JSON: " + text.substr(begin == std::string::npos ? 0 : begin + 2, 300));
  }
}

}  // namespace

class ApiServer::Impl {
 public:
  Impl(GenerationService& service, ServedModel model, ApiServerOptions options)
      : service_(service),
        model_(std::move(model)),
        options_(std::move(options)),
        metrics_(model_.names.front(), service.max_positions()),
        created_(std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
                     .count()),
        http_(
            options_.http, routes(), [this](const auto& path, const auto& key) { authorize(path, key); },
            [this](const auto& method, const auto& path, int status) { metrics_.answered(method, path, status); }) {}

  HttpServer& http() { return http_; }

 private:
  std::vector<HttpRoute> routes() {
    const auto health = [this](const HttpRequest&) {
      check_engine();
      return HttpAnswer{};
    };
    std::vector<HttpRoute> result = {
        {"POST", "/v1/completions", [this](const auto& request) { return complete(request, parse_completion); }},
        {"POST", "/v1/chat/completions", [this](const auto& request) { return complete(request, parse_chat); }},
        {"GET", "/v1/models", [this](const auto&) { return models(); }},
        {"GET", "/health", health},
        {"GET", "/ping", health},
        {"GET", "/version",
         [](const auto&) {
           return json_answer({{"version", FARSKIP_VERSION}});
         }},
        {"GET", "/metrics",
         [this](const auto&) {
           return HttpAnswer{.body = metrics_.text(service_.stats()),
                             .content_type = "text/plain; version=0.0.4; charset=utf-8"};
         }},
    };
    for (const auto& name : model_.names) {
      result.push_back({"GET", "/v1/models/" + name, [this, name](const auto&) { return json_answer(card(name)); }});
    }
    return result;
  }

  static HttpAnswer json_answer(const json& body) { return {.body = dump(body)}; }

  void authorize(const std::string& path, const std::string& authorization) const {
    if (options_.api_key.empty() || !path.starts_with("/v1/")) return;
    const std::string scheme = "Bearer ";
    if (authorization.starts_with(scheme) && equal_keys(authorization.substr(scheme.size()), options_.api_key)) return;
    throw ApiError(
        401,
        authorization.empty() ? "an API key is needed: Authorization: Bearer KEY" : "the API key is not this server's",
        "", "invalid_api_key");
  }

  void check_engine() const {
    const std::string failure = options_.failure ? options_.failure() : "";
    if (!failure.empty()) throw ApiError(503, "the engine has failed: " + failure, "", "engine_failed");
  }

  json card(const std::string& name) const {
    return {{"id", name},
            {"object", "model"},
            {"created", created_},
            {"owned_by", "farskip"},
            {"root", model_.names.front()},
            {"parent", nullptr},
            {"max_model_len", service_.max_positions()}};
  }
  HttpAnswer models() const {
    json list = json::array();
    for (const auto& name : model_.names) list.push_back(card(name));
    return json_answer({{"object", "list"}, {"data", std::move(list)}});
  }

  using Parse = CompletionRequest (*)(const json&, const ServedModel&, const RequestLimits&);
  /// Large bodies one at a time: as a tree of values they take many times their bytes.
  CompletionRequest read(const std::string& body, Parse parse) {
    std::unique_lock lock(large_body_, std::defer_lock);
    if (body.size() > kLargeBody) lock.lock();
    return parse(parse_body(body), model_, {service_.max_positions(), options_.max_sequences});
  }

  HttpAnswer complete(const HttpRequest& request, Parse parse) {
    check_engine();
    auto completion = std::make_shared<Completion>(read(request.body, parse), model_, service_, metrics_);
    if (completion->request().stream) {
      const auto stream = [completion, is_gone = request.is_gone](const HttpAnswer::Write& write) {
        completion->stream(write, is_gone);
      };
      return {.content_type = "text/event-stream; charset=utf-8",
              .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}},
              .stream = stream};
    }
    const json answer = completion->answer(request.is_gone);
    if (answer.is_null()) throw ApiError(499, "the client has gone");
    return json_answer(answer);
  }

  GenerationService& service_;
  const ServedModel model_;
  const ApiServerOptions options_;
  Metrics metrics_;
  const int64_t created_;
  std::mutex large_body_;
  HttpServer http_;
};

ApiServer::ApiServer(GenerationService& service, ServedModel model, ApiServerOptions options)
    : impl_(std::make_unique<Impl>(service, std::move(model), std::move(options))) {}
ApiServer::~ApiServer() = default;

int ApiServer::port() const { return impl_->http().port(); }
int ApiServer::num_connections() const { return impl_->http().num_connections(); }
void ApiServer::shut_down(double grace_s) { impl_->http().shut_down(grace_s); }

}  // namespace farskip::serve
