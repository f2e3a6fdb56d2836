#include "transport/spawn.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <poll.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "transport/clock.h"
#include "transport/rendezvous.h"

namespace farskip {
namespace {

struct Child {
  pid_t pid = -1;
  bool running = true;
  int status = 0;
};

std::vector<std::string> environment_of(int rank, int size, uint16_t port) {
  std::vector<std::string> result = {fmt::format("RANK={}", rank),
                                     fmt::format("WORLD_SIZE={}", size),
                                     fmt::format("LOCAL_RANK={}", rank),
                                     fmt::format("LOCAL_WORLD_SIZE={}", size),
                                     "MASTER_ADDR=127.0.0.1",
                                     fmt::format("MASTER_PORT={}", port),
                                     "TORCHELASTIC_USE_AGENT_STORE=False"};
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const auto name = text.substr(0, text.find('=') + 1);
    bool own = false;
    for (size_t i = 0; i < 7; ++i) own |= result[i].starts_with(name);
    if (!own) result.push_back(text);
  }
  return result;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (auto& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

/// Forks one rank, which dies with its parent and sees the signals that the parent blocks.
pid_t start(std::vector<std::string> argv, std::vector<std::string> environment, const sigset_t& unblocked) {
  const auto arguments = pointers_to(argv);
  const auto variables = pointers_to(environment);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) fail("cannot start another process: {}", std::strerror(errno));
  if (pid > 0) return pid;
  sigprocmask(SIG_SETMASK, &unblocked, nullptr);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  execve(arguments[0], arguments.data(), variables.data());
  std::fprintf(stderr, "farskip: cannot run %s: %s\n", arguments[0], std::strerror(errno));
  _exit(127);
}

bool succeeded(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

std::string how(int status) {
  if (WIFSIGNALED(status))
    return fmt::format("was killed by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  return fmt::format("exited with status {}", WEXITSTATUS(status));
}

void send_all(const std::vector<Child>& children, int signal) {
  for (const auto& child : children)
    if (child.running) kill(child.pid, signal);
}

/// Notes who ended; the first that failed is reported at once.
bool reap(std::vector<Child>& children, int& first_failed) {
  bool any_running = false;
  for (size_t r = 0; r < children.size(); ++r) {
    auto& child = children[r];
    if (child.running && waitpid(child.pid, &child.status, WNOHANG) == child.pid) {
      child.running = false;
      if (!succeeded(child.status) && first_failed < 0) {
        first_failed = static_cast<int>(r);
        std::fprintf(stderr, "farskip: rank %zu of %zu (process %d) %s\n", r, children.size(), child.pid,
                     how(child.status).c_str());
      }
    }
    any_running |= child.running;
  }
  return any_running;
}

}  // namespace

int spawn_ranks(int num_ranks, const std::vector<std::string>& argv, const SpawnOptions& options) {
  if (num_ranks < 1) fail("cannot start {} ranks; give at least one", num_ranks);
  if (argv.empty()) fail("cannot start ranks of no program");
  sigset_t watched, before;
  sigemptyset(&watched);
  for (const int signal : {SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGUSR1}) sigaddset(&watched, signal);
  sigprocmask(SIG_BLOCK, &watched, &before);
  // Never waited for in a read: another thread, which blocks no signals, may take one that poll() has seen.
  const int signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);

  std::fflush(nullptr);
  const uint16_t port = free_port();
  std::vector<Child> children(num_ranks);
  for (int r = 0; r < num_ranks; ++r) children[r].pid = start(argv, environment_of(r, num_ranks, port), before);

  int first_failed = -1;
  int passed_on = 0;
  double terminate_us = 0;  // when those that are left are asked to go; 0: not yet
  double kill_us = 0;
  while (reap(children, first_failed)) {
    const double now = now_us();
    if (terminate_us == 0 && (first_failed >= 0 || passed_on != 0)) {
      const bool silent = passed_on == 0 && WIFSIGNALED(children[first_failed].status);
      terminate_us = now + 1e6 * (first_failed < 0 ? options.signal_grace_s
                                  : silent         ? options.silent_grace_s
                                                   : options.grace_s);
    }
    if (terminate_us > 0 && kill_us == 0 && now >= terminate_us) {
      send_all(children, SIGTERM);
      kill_us = now + options.kill_s * 1e6;
    }
    if (kill_us > 0 && now >= kill_us) send_all(children, SIGKILL);
    pollfd poll_for{signals, POLLIN, 0};
    poll(&poll_for, 1, terminate_us > 0 ? 50 : 1000);
    signalfd_siginfo info;
    while ((poll_for.revents & POLLIN) != 0 && read(signals, &info, sizeof(info)) == sizeof(info)) {
      const auto signal = static_cast<int>(info.ssi_signo);
      if (signal != SIGCHLD) send_all(children, signal);
      if (signal != SIGCHLD && signal != SIGUSR1) passed_on = signal;
    }
  }
  close(signals);
  sigprocmask(SIG_SETMASK, &before, nullptr);
  if (first_failed < 0) return passed_on != 0 && !options.ends_by_signal ? 128 + passed_on : 0;
  const int status = children[first_failed].status;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace farskip
