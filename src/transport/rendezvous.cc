#include "transport/rendezvous.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "base/error.h"

namespace farskip {
namespace {

using Getter = std::function<const char*(const char*)>;

/// One launcher's names for the same things.
struct Names {
  const char* source;
  const char* rank;
  const char* size;
  const char* local_rank;
  const char* local_size;
};
constexpr Names kLaunchers[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"mpirun", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
    {"srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"},
};

int number_of(const char* text, const char* name, int lowest, int highest) {
  int value = 0;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), value);
  if (error != std::errc() || *end != '\0') fail("{}='{}' is not a whole number", name, text);
  if (value < lowest || value > highest) fail("{}={} is not between {} and {}", name, value, lowest, highest);
  return value;
}

constexpr int kMostRanks = 1 << 20;

/// Where rank 0 listens: MASTER_ADDR and MASTER_PORT where given (torchrun always does), else what the launcher knows.
void find_store(LaunchInfo& info, const Getter& get) {
  if (const char* host = get("MASTER_ADDR")) {
    info.host = host;
  } else if (const char* nodes = info.source == "srun" ? get("SLURM_JOB_NODELIST") : nullptr) {
    info.host = first_host(nodes);
  } else if (info.local_size < info.size || info.source == "torchrun") {
    fail("{} started {} ranks, {} of them here; set MASTER_ADDR to the address of rank 0", info.source, info.size,
         info.local_size);
  }
  if (const char* port = get("MASTER_PORT")) {
    info.port = static_cast<uint16_t>(number_of(port, "MASTER_PORT", 1, 65535));
  } else if (const char* job = info.source == "srun" ? get("SLURM_JOB_ID") : nullptr) {
    info.port =
        static_cast<uint16_t>(20000 + number_of(job, "SLURM_JOB_ID", 0, 1 << 30) % 20000);  // jobs share machines
  } else if (info.source == "torchrun") {
    fail("WORLD_SIZE={} is set, but MASTER_PORT is not", info.size);
  }
  const char* agent = get("TORCHELASTIC_USE_AGENT_STORE");
  info.hosts_store = !(info.source == "torchrun" && agent != nullptr && std::strcmp(agent, "True") == 0);
}

}  // namespace

LaunchInfo detect_launch(const Getter& get) {
  LaunchInfo info;
  for (const auto& names : kLaunchers) {
    const char* rank = get(names.rank);
    const char* size = get(names.size);
    if (rank == nullptr && size == nullptr) continue;
    if (rank == nullptr) fail("{}={} is set, but {} is not", names.size, size, names.rank);
    // Slurm sets its variables in a batch script too, outside srun: there is no rank yet.
    if (size == nullptr) fail("{}={} is set, but {} is not", names.rank, rank, names.size);
    info.source = names.source;
    info.size = number_of(size, names.size, 1, kMostRanks);
    info.rank = number_of(rank, names.rank, 0, info.size - 1);
    const char* local_size = get(names.local_size);
    info.local_size = local_size ? number_of(local_size, names.local_size, 1, info.size) : info.size;
    const char* local_rank = get(names.local_rank);
    info.local_rank =
        local_rank ? number_of(local_rank, names.local_rank, 0, info.size - 1) : info.rank % info.local_size;
    find_store(info, get);
    return info;
  }
  return info;
}

LaunchInfo detect_launch() {
  return detect_launch([](const char* name) -> const char* { return std::getenv(name); });
}

std::string first_host(const std::string& node_list) {
  const size_t open = node_list.find('[');
  const size_t comma = node_list.find(',');
  if (open == std::string::npos || comma < open) return node_list.substr(0, comma);
  const size_t close = node_list.find(']', open);
  if (close == std::string::npos) fail("node list '{}': '[' is not closed", node_list);
  const auto inside = node_list.substr(open + 1, close - open - 1);
  return node_list.substr(0, open) + inside.substr(0, inside.find_first_of(",-"));
}

uint16_t free_port() {
  const int socket_fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  const bool found = socket_fd >= 0 && bind(socket_fd, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
                     getsockname(socket_fd, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  if (socket_fd >= 0) close(socket_fd);
  if (!found) fail("no free TCP port on this machine ({})", std::strerror(errno));
  return ntohs(address.sin_port);
}

}  // namespace farskip
