#pragma once
// Errors as OpenAI's API says them: a status and {"error": {"message", "type", "param", "code"}}.

#include <nlohmann/json_fwd.hpp>
#include <stdexcept>
#include <string>

namespace farskip::serve {

class ApiError : public std::runtime_error {
 public:
  /// `param`: the field that is wrong; `code`: for programs; both may be empty (null in the answer).
  ApiError(int status, const std::string& message, std::string param = "", std::string code = "");

  int status() const { return status_; }
  /// The body of the answer.
  nlohmann::json json() const;

 private:
  int status_;
  std::string param_, code_;
};

/// 400: `message` says what is wrong with the field `param`.
[[noreturn]] void refuse(const std::string& param, const std::string& message);

/// JSON text; bytes that are no UTF-8 become U+FFFD.
std::string dump(const nlohmann::json& json);

}  // namespace farskip::serve
