"""A browser as far as HTTP goes: a jar of cookies, redirects that are followed one by one, forms that are sent."""
import html
import http.client
import http.cookies
import re
import ssl
import urllib.parse


class Answer:
    def __init__(self, url, response):
        self.url, self.status, self.headers = url, response.status, response.headers
        self.text = response.read().decode(errors="replace")

    @property
    def location(self):
        return urllib.parse.urljoin(self.url, self.headers["Location"])


class Browser:
    def __init__(self, html_wanted=True, ca=None):
        self.tls = ssl.create_default_context(cafile=ca) if ca else None
        self.jar = {}  # (host:port, name) -> (value, path): cookies of a port of its own each, or the provider's would reach the gateway
        self.set_cookies = []
        self.accept = "text/html,*/*;q=0.8" if html_wanted else "application/json"

    def cookies(self, url):
        """Those that go with a request, by name."""
        parts = urllib.parse.urlsplit(url)
        return {name: value for (place, name), (value, path) in self.jar.items() if place == parts.netloc and (parts.path or "/").startswith(path)}

    def keep(self, url, lines):
        place = urllib.parse.urlsplit(url).netloc
        for line in lines:
            name, _, rest = line.partition("=")
            value, _, attributes = rest.partition(";")
            path = re.search(r"(?i)path=([^;]*)", attributes)
            is_over = re.search(r"(?i)max-age=0\b|expires=thu, 01 jan 1970", attributes)
            if is_over:
                self.jar.pop((place, name), None)
            else:
                self.jar[place, name] = (value, path[1] if path else "/")

    def send(self, url, method="GET", form=None, headers=None):
        """One request, without following where it leads."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(parts.netloc, timeout=20, context=self.tls)
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=20)
        try:
            sent = {"Accept": self.accept, **(headers or {})}
            if jar := self.cookies(url):
                sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
            body = urllib.parse.urlencode(form) if form is not None else None
            if body is not None:
                sent["Content-Type"] = "application/x-www-form-urlencoded"
            connection.request(method, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, sent)
            response = connection.getresponse()
            self.set_cookies = response.headers.get_all("Set-Cookie") or []
            self.keep(url, self.set_cookies)
            return Answer(url, response)
        finally:
            connection.close()

    def follow(self, answer, until=None):
        """Redirects, up to one that leads to where `until` is found, which is returned."""
        for _ in range(20):
            if answer.status not in (301, 302, 303, 307, 308) or until and until in answer.location:
                return answer
            answer = self.send(answer.location)
        raise AssertionError("too many redirects: " + answer.url)

    def submit(self, answer, **values):
        """Sends the form of a page."""
        form = re.search(r"(?is)<form[^>]*>(.*)</form>", answer.text)
        assert form, answer.text
        action = html.unescape(re.search(r'(?i)<form[^>]*action="([^"]*)"', answer.text)[1])
        fields = {}
        for tag in re.findall(r"(?i)<input[^>]*>", form[1]):
            name, value = re.search(r'name="([^"]*)"', tag), re.search(r'value="([^"]*)"', tag)
            if name:
                fields[name[1]] = html.unescape(value[1]) if value else ""
        return self.send(urllib.parse.urljoin(answer.url, action), "POST", {**fields, **values})
