#include "tests/serve/client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

namespace farskip::testing {

std::vector<nlohmann::json> Answer::events() const {
  std::vector<nlohmann::json> result;
  std::istringstream lines(body);
  bool done = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty()) continue;
    EXPECT_FALSE(done) << line;
    EXPECT_TRUE(line.starts_with("data: ")) << line;
    if (line == "data: [DONE]") {
      done = true;
    } else {
      result.push_back(nlohmann::json::parse(line.substr(6)));  // refuses what is no UTF-8
    }
  }
  EXPECT_TRUE(done) << body;
  return result;
}

std::string Answer::error(const std::string& key) const {
  const auto value = json().at("error").at(key);
  return value.is_null() ? "" : value.get<std::string>();
}

Client::Client(int port, int receive_bytes) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  if (receive_bytes > 0) setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0) << strerror(errno);
}

Client::~Client() {
  if (fd_ >= 0) close(fd_);
}

void Client::send(const std::string& bytes) const {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t count = ::send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count <= 0) return;  // the server may have closed
    sent += count;
  }
}

bool Client::more(double seconds) {
  pollfd poll_for{fd_, POLLIN, 0};
  if (poll(&poll_for, 1, static_cast<int>(1000 * seconds)) <= 0) return false;
  char block[65536];
  const ssize_t count = recv(fd_, block, sizeof(block), 0);
  if (count <= 0) return false;
  received_.append(block, count);
  return true;
}

std::string Client::read_until(const std::string& text, double seconds) {
  size_t found;
  while ((found = received_.find(text)) == std::string::npos) {
    if (!more(seconds)) return "";
  }
  const std::string result = received_.substr(0, found + text.size());
  received_.erase(0, result.size());
  return result;
}

Answer Client::read(double seconds) {
  Answer answer;
  std::istringstream head(read_until("\r\n\r\n", seconds));
  std::string line;
  if (!std::getline(head, line) || line.size() < 12) return answer;
  answer.status = std::stoi(line.substr(9, 3));
  while (std::getline(head, line) && line.size() > 1) {
    std::string name = line.substr(0, line.find(": "));
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    answer.headers[name] = line.substr(name.size() + 2, line.size() - name.size() - 3);
  }
  if (answer.headers.count("content-length") != 0) {
    const size_t length = std::stoul(answer.headers["content-length"]);
    while (received_.size() < length && more(seconds)) {
    }
    answer.body = received_.substr(0, length);
    received_.erase(0, answer.body.size());
  } else if (answer.headers.count("transfer-encoding") != 0) {
    for (;;) {
      const std::string size = read_until("\r\n", seconds);
      if (size.empty()) break;
      const size_t length = std::stoul(size, nullptr, 16);
      while (received_.size() < length + 2 && more(seconds)) {
      }
      answer.body += received_.substr(0, length);
      received_.erase(0, length + 2);
      if (length == 0) break;
    }
  } else {
    while (more(seconds)) {
    }
    answer.body = std::exchange(received_, "");
  }
  return answer;
}

bool Client::is_closed(double seconds) {
  pollfd poll_for{fd_, POLLIN, 0};
  char byte;
  return poll(&poll_for, 1, static_cast<int>(1000 * seconds)) > 0 && recv(fd_, &byte, 1, MSG_PEEK) <= 0;
}

void Client::vanish() {
  const linger reset{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  close(fd_);
  fd_ = -1;
}

std::string post_text(const std::string& path, const std::string& body, const std::string& headers) {
  return "POST " + path +
         " HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n" + headers + "\r\n" + body;
}

Answer post(int port, const std::string& path, const nlohmann::json& body, const std::string& headers) {
  Client client(port);
  client.send(post_text(path, body.is_string() ? body.get<std::string>() : body.dump(), headers));
  return client.read();
}

Answer get(int port, const std::string& path, const std::string& headers) {
  Client client(port);
  client.send("GET " + path + " HTTP/1.1\r\nHost: test\r\n" + headers + "\r\n");
  return client.read();
}

}  // namespace farskip::testing
