// SPDX-License-Identifier: BSD-3-Clause
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <fstream>

#include "fixture.hh"

namespace viommu::vhost::test {
namespace {

class Listen : public testing::Test {
  protected:
    string error(const string& path) {
        auto s = Socket::listen(path, recorder);
        return s ? "none" : s.error().message;
    }
    /// A socket file at `path`; listening as long as the Fd lives, and left behind.
    static Fd bind_at(const string& path) {
        Fd s(::socket(AF_UNIX, SOCK_STREAM, 0));
        sockaddr_un a{};
        a.sun_family = AF_UNIX;
        path.copy(a.sun_path, sizeof a.sun_path - 1);
        EXPECT_EQ(0, bind(s, reinterpret_cast<sockaddr*>(&a), sizeof a));
        EXPECT_EQ(0, ::listen(s, 1));
        return s;
    }
    TemporaryDirectory directory;
    Recorder recorder;
};

TEST_F(Listen, socket_file_is_for_the_owner_only) {
    const mode_t before = umask(0);
    auto s = Socket::listen(directory / "s", recorder);
    EXPECT_EQ(0u, umask(before));
    ASSERT_TRUE(s) << s.error().message;
    struct stat file;
    ASSERT_EQ(0, stat((directory / "s").c_str(), &file));
    EXPECT_TRUE(S_ISSOCK(file.st_mode));
    EXPECT_EQ(0600u, file.st_mode & 0777);
    EXPECT_EQ(directory / "s", (*s)->path());
}

TEST_F(Listen, stale_socket_is_replaced) {
    bind_at(directory / "s");
    ASSERT_TRUE(std::filesystem::exists(directory / "s"));
    EXPECT_EQ("none", error(directory / "s"));
}

TEST_F(Listen, socket_of_a_living_process_is_left_alone) {
    const Fd living = bind_at(directory / "s");
    EXPECT_NE(string::npos, error(directory / "s").find("another process"))
        << error(directory / "s");
    EXPECT_TRUE(std::filesystem::exists(directory / "s"));
}

TEST_F(Listen, other_file_is_left_alone) {
    std::ofstream(directory / "s") << "precious";
    EXPECT_NE(string::npos, error(directory / "s").find("not a socket"));
    EXPECT_EQ(8u, std::filesystem::file_size(directory / "s"));
}

TEST_F(Listen, missing_directory_is_named) {
    const string path = directory / "none/s";
    EXPECT_NE(string::npos, error(path).find(path));
    EXPECT_NE(string::npos, error(path).find("directory must exist"));
}

TEST_F(Listen, path_too_long_is_refused) {
    const string longest = directory / "";
    EXPECT_EQ("none", error(longest + string(107 - longest.size(), 'x')));
    EXPECT_NE(string::npos, error(longest + string(108 - longest.size(), 'x')).find("107"));
    EXPECT_NE("none", error(""));
}

TEST_F(Listen, same_path_twice_is_refused) {
    auto first = Socket::listen(directory / "s", recorder);
    ASSERT_TRUE(first);
    EXPECT_NE(string::npos, error(directory / "s").find("twice"));
    Frontend f(directory / "s");
    EXPECT_TRUE(f.get_config(0, 8));
}

TEST_F(Listen, after_a_failure_the_path_can_be_used) {
    const string path = directory / "later/s";
    EXPECT_NE("none", error(path));
    std::filesystem::create_directory(directory / "later");
    EXPECT_EQ("none", error(path));
    EXPECT_EQ("none", error(path));
}

}  // namespace
}  // namespace viommu::vhost::test
