// SPDX-License-Identifier: BSD-3-Clause
/// How many pairs of queues a network device of the Linux guest uses, as `ethtool -L DEVICE
/// combined N` sets it.
///
/// usage: net-channels DEVICE N
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: net-channels DEVICE N\n");
        return 2;
    }
    ethtool_channels channels{};
    channels.cmd = ETHTOOL_SCHANNELS;
    channels.combined_count = unsigned(std::atoi(argv[2]));
    ifreq request{};
    std::strncpy(request.ifr_name, argv[1], IFNAMSIZ - 1);
    request.ifr_data = reinterpret_cast<char*>(&channels);
    const int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd >= 0 && ioctl(fd, SIOCETHTOOL, &request) == 0) return 0;
    std::perror("net-channels");
    return 1;
}
