#pragma once
// A client of the tests that can do what no well-behaved one does: send any bytes, stand still, vanish.

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace farskip::testing {

struct Answer {
  int status = 0;                              ///< 0: the connection ended without one
  std::map<std::string, std::string> headers;  ///< names in lower case
  std::string body;                            ///< of a chunked one the chunks' contents

  nlohmann::json json() const { return nlohmann::json::parse(body); }
  /// What the server-sent events say, without the last one, [DONE], which must be there.
  std::vector<nlohmann::json> events() const;
  /// error.message, error.param and so on; "" where it is null.
  std::string error(const std::string& key = "message") const;
};

class Client {
 public:
  /// `receive_bytes`: of the system's buffer, where not 0.
  explicit Client(int port, int receive_bytes = 0);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void send(const std::string& bytes) const;
  /// Reads one answer, at most `seconds` for each of its parts.
  Answer read(double seconds = 20);
  /// Reads until the text has come; "" where the connection ends before.
  std::string read_until(const std::string& text, double seconds = 20);
  /// Whether the server has closed the connection, within so many seconds.
  bool is_closed(double seconds = 20);
  /// Sends a reset: the client is gone.
  void vanish();

 private:
  /// False at the end of the connection, or where nothing comes.
  bool more(double seconds);
  int fd_;
  std::string received_;
};

std::string post_text(const std::string& path, const std::string& body, const std::string& headers = "");
Answer post(int port, const std::string& path, const nlohmann::json& body, const std::string& headers = "");
Answer get(int port, const std::string& path, const std::string& headers = "");

}  // namespace farskip::testing
