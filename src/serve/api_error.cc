#include "serve/api_error.h"

#include <nlohmann/json.hpp>

namespace farskip::serve {
namespace {

const char* type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 429:
      return "rate_limit_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

nlohmann::json text_or_null(const std::string& text) { return text.empty() ? nlohmann::json() : nlohmann::json(text); }

}  // namespace

ApiError::ApiError(int status, const std::string& message, std::string param, std::string code)
    : std::runtime_error(message), status_(status), param_(std::move(param)), code_(std::move(code)) {}

nlohmann::json ApiError::json() const {
  return {{"error",
           {{"message", what()},
            {"type", type_of(status_)},
            {"param", text_or_null(param_)},
            {"code", text_or_null(code_)}}}};
}

void refuse(const std::string& param, const std::string& message) { throw ApiError(400, message, param); }

std::string dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace farskip::serve
