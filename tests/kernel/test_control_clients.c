/* SPDX-License-Identifier: MIT */
/*
 * Clients of the control socket that are hostile, too many, or of another user; where the socket lies, what is there
 * before and after, and in children.
 */
#include "support.h"

#if SUPPORT_CONTROL
#include "chance.h"
#include "shadow.h"
#include "test_control.h"

/* --- clients of all kinds ------------------------------------------------------------------------------------- */

static void expect_closed_with(const char *bytes, size_t length, const char *error)
{
	struct client *client = client_new();
	must(send(client->fd, bytes, length, MSG_NOSIGNAL) > 0);
	struct json_object *answer = client_read(client);
	ck_assert_ptr_nonnull(answer);
	ck_assert_str_eq(words(answer, "error"), error);
	json_object_put(answer);
	ck_assert_ptr_null(client_read(client));
	client_free(client);
}

START_TEST(test_hostile_lines_are_answered_and_closed)
{
	static char garbage[64 << 10];
	struct chance chance = chance_new(5);
	expect_closed_with("hello\n", 6, "EPROTO");
	expect_closed_with("{\"v\":2}\n", 8, "EPROTONOSUPPORT");
	expect_closed_with("\0\n", 2, "EPROTO");
	memset(garbage, 'x', sizeof(garbage));
	expect_closed_with(garbage, 4096, "EMSGSIZE");
	for (unsigned i = 0; i < 50; i++) {
		struct client *client = client_new();
		chance_fill(&chance, garbage, sizeof(garbage));
		(void)send(client->fd, garbage, chance_below(&chance, sizeof(garbage)), MSG_NOSIGNAL | MSG_DONTWAIT);
		client_free(client);
	}
	/* A gigabyte without a newline: no more than a line of it is read. */
	struct client *client = client_new();
	uint64_t sent = 0;
	memset(garbage, '[', sizeof(garbage));
	for (ssize_t done = 1; done > 0 && sent<1u << 30; sent += done> 0 ? (uint64_t)done : 0)
		done = send(client->fd, garbage, sizeof(garbage), MSG_NOSIGNAL);
	ck_assert_uint_lt(sent, 16 << 20);
	client_free(client);
	json_object_put(ask_well("\"do\":\"hello\""));
	close_place_now();
}
END_TEST

START_TEST(test_lines_in_pieces_and_many_at_once_are_answered_in_order)
{
	struct client *client = client_new();
	const char *line = "{\"v\":1,\"id\":1,\"do\":\"hello\"}\n";
	for (const char *at = line; *at; at++)
		must(send(client->fd, at, 1, 0) == 1);
	struct json_object *answer = client_read(client);
	ck_assert_uint_eq(number(answer, "id"), 1);
	json_object_put(answer);
	char lines[64 * 40] = "";
	for (int i = 0; i < 64; i++)
		(void)snprintf(lines + strlen(lines), 40, "{\"v\":1,\"id\":%d,\"do\":\"hello\"}\n", i);
	client_send(client, lines);
	for (unsigned i = 0; i < 64; i++) {
		answer = client_read(client);
		ck_assert_uint_eq(number(answer, "id"), i);
		json_object_put(answer);
	}
	/* Half a line of one client is not another's. */
	client_send(client, "{\"v\":1,\"do\":");
	json_object_put(ask_well("\"do\":\"list\""));
	client_send(client, "\"hello\"}\n");
	answer = client_read(client);
	ck_assert(json_object_get_boolean(member(answer, "ok")));
	json_object_put(answer);
	client_free(client);
	close_place_now();
}
END_TEST

/* A client that asks without end, and reads what is answered. */
struct flood {
	int fd;
	_Atomic uint64_t answers;
	_Atomic int has_ended; /* no more can be sent */
};

static void *flood_send(void *argument)
{
	static const char line[] = "{\"v\":1,\"do\":\"hello\"}\n";
	static char lines[4000 * (sizeof(line) - 1)];
	struct flood *flood = argument;
	for (size_t i = 0; i < sizeof(lines); i++)
		lines[i] = line[i % (sizeof(line) - 1)];
	while (send(flood->fd, lines, sizeof(lines), MSG_NOSIGNAL) == (ssize_t)sizeof(lines))
		continue;
	atomic_store(&flood->has_ended, 1);
	return NULL;
}

static void *flood_read(void *argument)
{
	static char bytes[64 << 10];
	struct flood *flood = argument;
	ssize_t got;
	while ((got = recv(flood->fd, bytes, sizeof(bytes), 0)) > 0) {
		for (ssize_t i = 0; i < got; i++)
			flood->answers += bytes[i] == '\n';
	}
	return NULL;
}

static int flood_has_begun(void *argument)
{
	return atomic_load(&((struct flood *)argument)->answers) >= 1000;
}

START_TEST(test_a_client_that_asks_without_end_keeps_nobody_waiting)
{
	struct flood flood = {.fd = connect_to(path)};
	must(flood.fd >= 0);
	pthread_t reader = thread_start(flood_read, &flood);
	pthread_t sender = thread_start(flood_send, &flood);
	ck_assert(wait_until(flood_has_begun, &flood, 60));
	for (int i = 0; i < 20; i++)
		json_object_put(ask_well("\"do\":\"hello\""));
	ck_assert(!atomic_load(&flood.has_ended));
	close_place_now();
	thread_join(sender);
	thread_join(reader);
	close(flood.fd);
}
END_TEST

static int client_fits(void *argument)
{
	struct client *client = client_new();
	client_send(client, "{\"v\":1,\"do\":\"hello\"}\n");
	struct json_object *answer = client_read(client);
	int fits = answer && json_object_get_boolean(member(answer, "ok"));
	(void)argument;
	json_object_put(answer);
	client_free(client);
	return fits;
}

START_TEST(test_the_seventeenth_client_is_sent_away)
{
	struct client *clients[CLIENTS_MOST];
	for (int i = 0; i < CLIENTS_MOST; i++) {
		clients[i] = client_new();
		client_send(clients[i], "{\"v\":1,\"do\":\"hello\"}\n");
		json_object_put(client_read(clients[i]));
	}
	struct client *last = client_new();
	struct json_object *answer = client_read(last);
	ck_assert_ptr_nonnull(answer);
	ck_assert_str_eq(words(answer, "error"), "EUSERS");
	json_object_put(answer);
	ck_assert_ptr_null(client_read(last));
	client_free(last);
	client_free(clients[7]);
	ck_assert(wait_until(client_fits, NULL, 20));
	for (int i = 0; i < CLIENTS_MOST; i++) {
		if (i != 7)
			client_free(clients[i]);
	}
	close_place_now();
}
END_TEST

static void be_a_child(void *argument)
{
	struct uffdwp *own;
	char before[SCRATCH_PATH];
	(void)argument;
	memcpy(before, path, sizeof(before));
	must(uffdwp_region_close(place.region) == -ECHILD);
	scratch_join(path, folder, "child.sock");
	must(open_runtime(0, &own) == 0);
	struct json_object *answer = ask("\"do\":\"list\"");
	must(number(answer, "pid") == (uint64_t)getpid());
	must(json_object_array_length(member(answer, "regions")) == 0);
	must(uffdwp_close(own) == 0);
	must(access(path, F_OK) == -1 && access(before, F_OK) == 0);
	exit(0); /* with what runs at exit(3) */
}

START_TEST(test_a_child_has_no_part_in_its_parents_control)
{
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(child_run(be_a_child, NULL), 0);
		struct json_object *answer = ask_well("\"do\":\"hello\"");
		ck_assert_uint_eq(number(answer, "pid"), (uint64_t)getpid());
		json_object_put(answer);
	}
	close_place_now();
}
END_TEST

static void leave_at_exit(void *argument)
{
	struct uffdwp *own;
	must(open_runtime(0, &own) == 0);
	must(access(path, F_OK) == 0);
	if (argument)
		_exit(0);
	exit(0);
}

START_TEST(test_the_socket_goes_at_exit_and_a_leftover_is_replaced)
{
	struct stat st;
	ck_assert_int_eq(child_run(leave_at_exit, NULL), 0);
	ck_assert_int_eq(access(path, F_OK), -1);
	ck_assert_int_eq(child_run(leave_at_exit, path), 0);
	ck_assert_int_eq(access(path, F_OK), 0);
	ck_assert_int_eq(connect_to(path), -ECONNREFUSED);
	open_place(UFFDWP_DELIVERY_AUTO, 0);
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert(S_ISSOCK(st.st_mode));
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	json_object_put(ask_well("\"do\":\"hello\""));
	ck_assert_uint_eq(scratch_entries(folder), 1);
	/* One that answers is left alone. */
	ck_assert_int_ne(child_run(leave_at_exit, path), 0);
	json_object_put(ask_well("\"do\":\"hello\""));
	close_place_now();
}
END_TEST

static void be_another_user(void *argument)
{
	char byte;
	(void)argument;
	must(setgid(65534) == 0 && setuid(65534) == 0);
	int fd = connect_to(path);
	must(fd >= 0);
	(void)send(fd, "{\"v\":1,\"do\":\"hello\"}\n", 21, MSG_NOSIGNAL);
	must(recv(fd, &byte, 1, 0) <= 0);
}

static void be_kept_out(void *argument)
{
	(void)argument;
	must(setgid(65534) == 0 && setuid(65534) == 0);
	must(connect_to(path) == -EACCES);
}

START_TEST(test_another_user_gets_nothing)
{
	if (!support_may_change_user()) {
		support_note(__func__, "no other user is available");
		close_place_now();
		return;
	}
	ck_assert_int_eq(child_run(be_kept_out, NULL), 0);
	ck_assert_int_eq(chmod(path, 0666), 0);
	ck_assert_int_eq(child_run(be_another_user, NULL), 0);
	json_object_put(ask_well("\"do\":\"hello\""));
	close_place_now();
}
END_TEST

/* Opens a runtime where only the environment asks for control; 1: its socket lies in the folder. */
static int has_socket_in(const char *where)
{
	struct uffdwp *runtime;
	char name[SCRATCH_PATH];
	char wanted[32];
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	(void)snprintf(wanted, sizeof(wanted), "%d.sock", (int)getpid());
	scratch_join(name, where, wanted);
	int has = access(name, F_OK) == 0;
	ck_assert_int_eq(uffdwp_close(runtime), 0);
	ck_assert_int_eq(access(name, F_OK), -1);
	return has;
}

START_TEST(test_the_environment_asks_and_folders_of_others_are_not_used)
{
	char own[SCRATCH_PATH];
	char other[SCRATCH_PATH];
	scratch_join(own, folder, "uffdwp");
	scratch_join(other, folder, "other");
	setenv("XDG_RUNTIME_DIR", folder, 1);
	ck_assert_int_eq(has_socket_in(own), 0);
	setenv("UFFDWP_CONTROL", "0", 1);
	ck_assert_int_eq(has_socket_in(own), 0);
	setenv("UFFDWP_CONTROL", "look,fly", 1);
	ck_assert_int_eq(has_socket_in(own), 0);
	setenv("UFFDWP_CONTROL", "look,arm", 1);
	ck_assert_int_eq(has_socket_in(own), 1);
	setenv("UFFDWP_CONTROL", "1", 1);
	ck_assert_int_eq(has_socket_in(own), 1);
	ck_assert_int_eq(chmod(own, 0755), 0);
	ck_assert_int_eq(has_socket_in(own), 0);
	ck_assert_int_eq(rmdir(own), 0);
	ck_assert_int_eq(mkdir(other, 0700), 0);
	ck_assert_int_eq(symlink(other, own), 0);
	ck_assert_int_eq(has_socket_in(own), 0);
	ck_assert_uint_eq(scratch_entries(other), 0);
	ck_assert_int_eq(unlink(own), 0);
	if (support_may_change_user()) {
		ck_assert_int_eq(mkdir(own, 0700), 0);
		ck_assert_int_eq(chown(own, 65534, 65534), 0);
		ck_assert_int_eq(has_socket_in(own), 0);
		ck_assert_int_eq(rmdir(own), 0);
	}
	ck_assert_int_eq(rmdir(other), 0);
}
END_TEST

START_TEST(test_a_path_that_cannot_be_is_an_error)
{
	struct uffdwp *runtime = NULL;
	char text[512] = "";
	scratch_join(path, folder, "no/such.sock");
	ck_assert_int_eq(open_runtime(0, &runtime), -ENOENT);
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, "no/such.sock") != NULL, "%s", text);
	memset(path, 'a', 200);
	path[0] = '/';
	path[200] = '\0';
	ck_assert_int_eq(open_runtime(0, &runtime), -ENAMETOOLONG);
	memcpy(path, "relative", 9);
	ck_assert_int_eq(open_runtime(0, &runtime), -EINVAL);
	/* What lies there and is no socket stays. */
	scratch_join(path, folder, "file");
	scratch_write(path, "x", 1);
	ck_assert_int_lt(open_runtime(0, &runtime), 0);
	ck_assert_int_eq(access(path, F_OK), 0);
	ck_assert_ptr_null(runtime);
}
END_TEST

START_TEST(test_a_program_that_closes_all_loses_control_only)
{
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};
	struct client *client = client_new();
	client_send(client, "{\"v\":1,\"do\":\"hello\"}\n");
	json_object_put(client_read(client));
	for (int fd = 3; fd < 200; fd++)
		(void)close(fd);
	free(client);
	ck_assert_int_eq(uffdwp_region_stats(place.region, &stats), 0);
	(void)uffdwp_region_close(place.region);
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

int main(void)
{
	support_begin("test_control_clients", &(struct support_needs){0, 0});
	place_begin();
	Suite *suite = suite_create("control");
	TCase *tests = tcase_create("control");
	TCase *opened = tcase_create("opened");
	tcase_set_timeout(tests, 600);
	tcase_set_timeout(opened, 600);
	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_add_checked_fixture(opened, setup_open, NULL);
	tcase_add_test(opened, test_hostile_lines_are_answered_and_closed);
	tcase_add_test(opened, test_lines_in_pieces_and_many_at_once_are_answered_in_order);
	tcase_add_test(opened, test_a_client_that_asks_without_end_keeps_nobody_waiting);
	tcase_add_test(opened, test_the_seventeenth_client_is_sent_away);
	if (!SUPPORT_THREAD_SANITIZER) /* no threads in children of threads */
		tcase_add_test(opened, test_a_child_has_no_part_in_its_parents_control);
	tcase_add_test(tests, test_the_socket_goes_at_exit_and_a_leftover_is_replaced);
	tcase_add_test(opened, test_another_user_gets_nothing);
	tcase_add_test(tests, test_the_environment_asks_and_folders_of_others_are_not_used);
	tcase_add_test(tests, test_a_path_that_cannot_be_is_an_error);
	if (!SUPPORT_THREAD_SANITIZER) /* it sees a race between close(2) and a thread that is cancelled in its wait */
		tcase_add_test(opened, test_a_program_that_closes_all_loses_control_only);
	suite_add_tcase(suite, tests);
	suite_add_tcase(suite, opened);
	return support_run(suite);
}

#else

int main(void)
{
	return support_skip("the library was built without json-c");
}

#endif
